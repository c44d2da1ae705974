#include "cli/app.h"
#include "formats/checkpoint.h"
#include "graph/passes.h"
#include "models/models.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model;
  bool decomposed = false, hash = false;
};

Status run(App& app, const Options& options) {
  POME_ASSIGN_OR_RETURN(const std::string path, checkpoint_path(options.model, "graph"));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(path));
  POME_ASSIGN_OR_RETURN(Graph graph, build_graph(checkpoint));
  if (options.decomposed) graph = decompose(graph);
  std::string source_hash;
  if (options.hash) {
    ThreadPool pool(app.common.threads);
    POME_ASSIGN_OR_RETURN(const GraphHashes hashes, hash_graph(graph, &pool));
    source_hash = hashes.source_hash;
  }
  if (!app.common.json) {
    app.print(print(graph));
    if (options.hash) app.print("source_hash " + source_hash + "\n");
    return {};
  }
  Json nodes = Json::array(), constants = Json::array();
  for (const Node& node : graph.nodes)
    nodes.push_back({{"result", node.result},
                     {"name", graph.name(node.result)},
                     {"op", op_name(node.op)},
                     {"operands", node.operands},
                     {"shape", to_string(graph.type(node.result).shape)}});
  for (const Constant& constant : graph.constants)
    constants.push_back({{"name", constant.name},
                         {"hf_name", constant.hf_name},
                         {"gguf_name", constant.gguf_name},
                         {"shape", constant.data->shape()},
                         {"encoding", to_string(constant.data->encoding())}});
  Json all = {{"family", graph.info.family},
              {"nodes", nodes},
              {"constants", constants},
              {"output", graph.output}};
  if (options.hash) all["source_hash"] = source_hash;
  app.print_json(all);
  return {};
}

}  // namespace

void add_graph(App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_command("graph", "print the graph of a model",
                                      [&app, options] { return run(app, *options); });
  command->add_option("model", options->model, "folder, .safetensors or .gguf file")->required();
  command->add_flag("--decomposed", options->decomposed,
                    "composite ops replaced by the primitives that define them");
  command->add_flag("--hash", options->hash, "also the source hash (reads all weights)");
}

}  // namespace pome::cli
