#include "cli/evaluate.h"

namespace pome::cli {

Result<Opened> open_to_score(App& app, const Evaluation& evaluation) {
  Opened out;
  const int64_t context = evaluation.load.context;
  LoadOptions load = evaluation.load;
  // Rope factors are those of the length that is evaluated.
  load.declared_length = context ? context : kDefaultWindow;
  POME_ASSIGN_OR_RETURN(out.model, load_model(evaluation.model, load, app.work()));
  POME_ASSIGN_OR_RETURN(const std::string text, text_or_default(evaluation.text));
  out.ids = out.model.tokenizer->encode(text);
  if (evaluation.max_tokens > 0 && static_cast<int64_t>(out.ids.size()) > evaluation.max_tokens)
    out.ids.resize(static_cast<size_t>(evaluation.max_tokens));
  if (out.ids.size() < 2)
    return bad_input(Refusal::kRange, "holds " + std::to_string(out.ids.size()) +
                                          " tokens, at least 2 are needed to score one")
        .in(evaluation.text);
  out.scoring.window =
      context ? context : std::min(kDefaultWindow, out.model.runner->info().capacity);
  out.scoring.rule = evaluation.rule == "second-half" ? ScoreRule::kSecondHalf : ScoreRule::kAll;
  out.scoring.bos = out.model.tokenizer->source().bos;
  return out;
}

Result<Comparison> compare_with_original(App& app, const Evaluation& evaluation, Opened* opened) {
  LoadOptions other = evaluation.load;
  other.declared_length = other.context ? other.context : kDefaultWindow;
  other.round_f16 = false;
  other.need_tokenizer = false;
  // What is compared is the model at hand with the original as it is.
  other.kv.reset();
  if (opened->model.kind != "checkpoint")
    other.declared_length = opened->model.runner->info().capacity;
  POME_ASSIGN_OR_RETURN(const LoadedModel original,
                        load_model(evaluation.against, other, app.work()));
  auto compared =
      compare(*opened->model.runner, *original.runner, opened->ids, opened->scoring, app.work());
  if (!compared.ok()) return Status(compared.status()).in(evaluation.model);
  return compared;
}

Status check_increase(const Comparison& comparison, double limit) {
  if (comparison.ppl_increase_percent <= limit) return {};
  return gate_failed("perplexity rose by " + fixed(comparison.ppl_increase_percent, 2) +
                     " %, allowed are " + fixed(limit, 2) + " %");
}

}  // namespace pome::cli
