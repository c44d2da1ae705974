#include "export/constant_stream.h"

#include <algorithm>
#include <map>

#include "base/checked.h"

namespace pome {

ConstantStream::ConstantStream(const Graph& graph, const WorkContext& work)
    : graph_(graph),
      work_(work),
      pool_(std::max(1, work.threads)),
      slots_(static_cast<size_t>(2 * pool_.threads())),
      done_(graph.constants.size()) {}

Status ConstantStream::constant(size_t index, const ConstantData& stored, float factor,
                                const Prepare& prepare, const Write& write) {
  const ConstantData& data = *graph_.constants[index].data;
  const int64_t step = tile_rows(data);
  DigestBuilder digest(data);
  Done done;
  done.encoding = to_string(stored.encoding());
  done.bytes = stored.stored_bytes();
  Status status = pool_.ordered(
      ceil_div(data.rows(), step), static_cast<int64_t>(slots_.size()),
      [&](int64_t tile, int64_t slot_index) {
        Slot& slot = slots_[static_cast<size_t>(slot_index)];
        slot.row = tile * step;
        slot.rows = std::min(step, data.rows() - slot.row);
        return produce(data, stored, factor, prepare, &slot);
      },
      [&](int64_t, int64_t slot_index) -> Status {
        const Slot& slot = slots_[static_cast<size_t>(slot_index)];
        digest.add(slot.digest);
        done.error.add(slot.error);
        POME_RETURN_IF_ERROR(write(slot.piece));
        uint64_t bytes = 0;
        for (const auto& part : slot.piece.tile.parts) bytes += part.size();
        return advance(bytes);
      });
  if (!status.ok()) return std::move(status).at("tensor " + graph_.constants[index].name);
  done.digest = digest.finish();
  done_[index] = std::move(done);
  return {};
}

Status ConstantStream::produce(const ConstantData& data, const ConstantData& stored, float factor,
                               const Prepare& prepare, Slot* slot) const {
  POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
  POME_RETURN_IF_ERROR(stored.read_tile(slot->row, slot->rows, &slot->piece.tile));
  const EncodedTile* own = &slot->piece.tile;
  if (&stored != &data) {
    POME_RETURN_IF_ERROR(data.read_tile(slot->row, slot->rows, &slot->own));
    own = &slot->own;
  }
  slot->digest = DigestBuilder::of_tile(*own);
  POME_ASSIGN_OR_RETURN(slot->error, rounding_error(data, factor, *own, &slot->scratch));
  return prepare ? prepare(&slot->piece) : Status();
}

Status ConstantStream::advance(uint64_t bytes) {
  progressed_ += bytes;
  if (work_.progress) work_.progress->advance(progressed_);
  return check_cancelled(work_.cancel);
}

Status ConstantStream::finish(ExportReport* report, std::vector<TensorError>* errors) {
  std::vector<Digest> digests, canonical;
  uint64_t stored_bytes = 0;
  for (size_t i = 0; i < graph_.constants.size(); ++i) {
    const Constant& constant = graph_.constants[i];
    const ConstantData& data = *constant.data;
    Digest digest;
    if (done_[i]) {
      digest = done_[i]->digest;
    } else {
      POME_ASSIGN_OR_RETURN(digest, digest_of(data, &pool_));
    }
    digests.push_back(digest);
    canonical.push_back(digest);
    if (&data.canonical() != &data) {
      POME_ASSIGN_OR_RETURN(canonical.back(), digest_of(data.canonical(), &pool_));
      POME_RETURN_IF_ERROR(advance(data.canonical().stored_bytes()));
    }
    if (!done_[i] || !is_parameter(constant)) continue;
    report->parameters += data.rows() * data.columns();
    stored_bytes += done_[i]->bytes;
    errors->push_back(
        {constant.name, done_[i]->encoding, done_[i]->bytes, done_[i]->error.relative()});
  }
  report->weight_bytes = stored_bytes;
  if (report->parameters > 0)
    report->bits_per_weight =
        static_cast<double>(stored_bytes) * 8 / static_cast<double>(report->parameters);
  report->hashes.graph_hash = structure_hash(graph_, digests, false);
  report->hashes.source_hash = structure_hash(graph_, canonical, true);
  return {};
}

Result<std::string> ConstantStream::hash_of(const Graph& reopened) {
  std::map<std::string, Digest> known;
  for (size_t i = 0; i < done_.size(); ++i)
    if (done_[i]) known[graph_.constants[i].name] = done_[i]->digest;
  std::vector<Digest> digests;
  for (const Constant& constant : reopened.constants) {
    const auto found = known.find(constant.name);
    if (found != known.end()) {
      digests.push_back(found->second);
      known.erase(found);
      continue;
    }
    POME_ASSIGN_OR_RETURN(const Digest digest, digest_of(*constant.data, &pool_));
    digests.push_back(digest);
  }
  if (!known.empty())
    return unsupported("a reader of the file does not find the weight " + known.begin()->first);
  return structure_hash(reopened, digests, false);
}

uint64_t streamed_bytes(const Graph& graph, uint64_t stored) {
  for (const Constant& constant : graph.constants)
    if (&constant.data->canonical() != constant.data.get())
      stored += constant.data->canonical().stored_bytes();
  return stored;
}

Status check_stacked(const std::string& tensor, const std::vector<RowSpan>& parts, int64_t rows) {
  const auto refuse = [&](const char* why) {
    return unsupported("the parts of " + tensor + " " + why).at("tensor " + tensor);
  };
  int64_t found = 0;
  for (const RowSpan& part : parts) {
    if (part.first != found) return refuse("do not follow each other");
    found += part.rows;
  }
  return found == rows ? Status() : refuse("are not all there");
}

}  // namespace pome
