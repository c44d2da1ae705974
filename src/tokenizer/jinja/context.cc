#include "tokenizer/jinja/context.h"

#include <utility>

namespace pome::jinja {

Status template_error(Place place, std::string message) {
  return bad_input(Refusal::kTemplate, std::move(message))
      .at("line " + std::to_string(place.line) + " column " + std::to_string(place.column));
}

Status Context::spend(Place place, uint64_t amount) {
  if (amount <= limits_.steps - spent_) {
    spent_ += amount;
    return {};
  }
  spent_ = limits_.steps;
  return template_error(place,
                        "the template takes more than " + std::to_string(limits_.steps) + " steps");
}

Status Context::room(Place place, uint64_t bytes) {
  POME_RETURN_IF_ERROR(spend(place, 1 + bytes / 16));
  if (bytes <= static_cast<uint64_t>(limits_.memory) &&
      live_ + static_cast<int64_t>(bytes) <= limits_.memory) {
    return {};
  }
  return template_error(
      place, "the template needs more than " + std::to_string(limits_.memory) + " bytes of memory");
}

Result<Value> Context::made(Place place, Text text, bool markup) {
  if (text.size() > limits_.text) {
    return template_error(place,
                          "a string is larger than " + std::to_string(limits_.text) + " bytes");
  }
  const uint64_t bytes =
      sizeof(TextBox) + 32 + text.bytes().capacity() + text.runs().size() * sizeof(Text::Run);
  POME_RETURN_IF_ERROR(room(place, bytes));
  Value out(TextBox{std::move(text), markup});
  out.charge(&live_, static_cast<int64_t>(bytes));
  return out;
}

template <typename T>
Result<Value> Context::checked(Place place, T made, uint64_t items, uint64_t bytes) {
  POME_RETURN_IF_ERROR(spend(place, items));
  POME_RETURN_IF_ERROR(room(place, bytes));
  Value out(std::move(made));
  if (out.depth() > kMaxDepth) return template_error(place, "lists are nested deeper than 200");
  out.charge(&live_, static_cast<int64_t>(bytes));
  return out;
}

Result<Value> Context::made(Place place, Sequence sequence) {
  const uint64_t items = sequence.items.size();
  return checked(place, std::move(sequence), items, sizeof(Sequence) + 32 + items * sizeof(Value));
}

Result<Value> Context::made(Place place, Dict dict) {
  const uint64_t items = dict.size();
  return checked(place, std::move(dict), items,
                 sizeof(DictBox) + 32 + items * (sizeof(Dict::Field) + 16));
}

Result<Value> Context::list(Place place, List items) {
  return made(place, Sequence{.items = std::move(items)});
}
Result<Value> Context::tuple(Place place, List items) {
  return made(place, Sequence{.shape = Sequence::Shape::kTuple, .items = std::move(items)});
}

Result<Value> Context::generator(Place place, List items) {
  POME_ASSIGN_OR_RETURN(Generator* const made,
                        make<Generator>(place, items.size() * sizeof(Value)));
  made->items = std::move(items);
  return Value(made);
}

Result<Scope*> Context::make_scope(Place place) {
  if (free_scopes_.empty()) return make<Scope>(place, 4 * sizeof(Value));
  Scope* const scope = free_scopes_.back();
  free_scopes_.pop_back();
  return scope;
}

void Context::recycle(Scope* scope) {
  if (scope->captured) return;
  scope->names.clear();
  scope->block = false;
  free_scopes_.push_back(scope);
}

Result<Loop*> Context::make_loop(Place place) {
  if (free_loops_.empty()) return make<Loop>(place);
  Loop* const loop = free_loops_.back();
  free_loops_.pop_back();
  return loop;
}

void Context::recycle(Loop* loop) {
  if (loop->escaped) return;
  loop->sequence = Value();
  loop->next = 0;
  loop->depth0 = 0;
  loop->routine = -1;
  loop->scope = nullptr;
  loop->completed = loop->has_changed = false;
  loop->kept.clear();
  loop->last_changed = Value();
  free_loops_.push_back(loop);
}

}  // namespace pome::jinja
