#include "verify/verify_parts.h"

#include <cmath>

namespace pome {

namespace {

std::string percent(double fraction) {
  return std::to_string(static_cast<int>(std::lround(fraction * 1e4)) / 100.0).substr(0, 5) + " %";
}

}  // namespace

Status check_files(const std::string& folder, const WorkContext& work, VerifyReport* report) {
  report->has_manifest = !folder.empty();
  if (!report->has_manifest) return {};
  POME_ASSIGN_OR_RETURN(const Manifest manifest, read_manifest(folder + "/" + kManifestName));
  report->graph_hash = manifest.graph_hash;
  report->source_hash = manifest.source_hash;
  POME_ASSIGN_OR_RETURN(report->integrity, check_integrity(folder, manifest, work));
  for (const IntegrityFinding& finding : report->integrity)
    report->problems.push_back("integrity: " + finding.file +
                               (finding.tensor.empty() ? "" : ", tensor " + finding.tensor) + " " +
                               finding.problem);
  return {};
}

void check_gates(const VerifyOptions& options, const Comparison& c,
                 std::vector<std::string>* problems) {
  if (options.max_ppl_increase_percent &&
      c.ppl_increase_percent > *options.max_ppl_increase_percent)
    problems->push_back("gate: perplexity rose by " + std::to_string(c.ppl_increase_percent) +
                        " %, allowed are " + std::to_string(*options.max_ppl_increase_percent) +
                        " %");
  if (options.max_mean_kld && c.mean_kld > *options.max_mean_kld)
    problems->push_back("gate: mean KL divergence is " + std::to_string(c.mean_kld) +
                        ", allowed are " + std::to_string(*options.max_mean_kld));
  if (options.min_top1_agreement && c.top1_agreement < *options.min_top1_agreement)
    problems->push_back("gate: the best token agrees in " + percent(c.top1_agreement) +
                        " of positions, asked for are " + percent(*options.min_top1_agreement));
}

}  // namespace pome
