#include "formats/pytorch.h"

#include <algorithm>

#include "base/checked.h"
#include "formats/duplicates.h"
#include "formats/pickle.h"
#include "formats/pytorch_objects.h"
#include "formats/pytorch_view.h"
#include "formats/sniff.h"

namespace pome {
namespace {

using pytorch::Objects;
using pytorch::StatedTensor;
using pytorch::Storage;

constexpr uint64_t kMaxPickleBytes = 64u << 20;
constexpr uint64_t kMaxVersion = 10;
constexpr size_t kMaxWrappers = 3;
// Names under which training programs keep the weights beside other things.
constexpr std::string_view kWrappers[] = {"state_dict", "model_state_dict", "model", "module"};
// What wrappers of modules put in front of every name.
constexpr std::string_view kPrefixes[] = {"module.", "_orig_mod."};
constexpr std::string_view kSaveAgain =
    "load the file in PyTorch with weights_only=True and save only the weights: "
    "torch.save(model.state_dict(), FILE)";

std::string in_quotes(std::string_view text) { return "\"" + escape_for_terminal(text, 80) + "\""; }

class FileParser {
 public:
  explicit FileParser(ZipFile archive) { file_.archive = std::move(archive); }

  Result<PytorchFile> parse();

 private:
  Status refuse(Refusal refusal, std::string message) const {
    return bad_input(refusal, std::move(message)).in(file_.archive.source->name());
  }
  Status cannot(std::string message, std::string_view hint) const {
    return Status(StatusCode::kUnsupported, std::move(message), Refusal::kType)
        .in(file_.archive.source->name())
        .hint(hint);
  }

  Result<std::string> find_root() const;
  Result<std::string> small_entry(const std::string& name) const;
  Status check_records(const std::string& root) const;
  Result<PickleRef> find_state_dict(const Pickle& pickle) const;
  Status take_tensors(const Pickle& pickle, PickleRef dict, const Objects& objects);
  Result<PytorchTensor> place(std::string name, const StatedTensor& stated,
                              const Storage& storage) const;
  Status check_geometry(const StatedTensor& stated, const Storage& storage,
                        uint64_t* elements) const;
  void strip_prefixes();

  PytorchFile file_;
};

// The folder in the archive that everything lies in.
Result<std::string> FileParser::find_root() const {
  constexpr std::string_view kPickle = "/data.pkl";
  const std::string* root = nullptr;
  bool numpy = false;
  for (const ZipEntry& entry : file_.archive.entries) {
    numpy = numpy || entry.name.ends_with(".npy");
    const std::string& name = entry.name;
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    if (root) return refuse(Refusal::kDup, "the archive holds two checkpoints (data.pkl)");
    root = &name;
  }
  if (root) return root->substr(0, root->size() - kPickle.size());
  return refuse(Refusal::kMagic,
                numpy ? "this is an archive of NumPy arrays (.npz)"
                      : "this zip archive is no PyTorch checkpoint: it has no data.pkl")
      .hint("pome reads what torch.save writes, safetensors and GGUF");
}

Result<std::string> FileParser::small_entry(const std::string& name) const {
  const ZipEntry* entry = file_.archive.find(name);
  if (!entry) return std::string();
  if (entry->bytes > 64)
    return refuse(Refusal::kLimit, "the entry " + in_quotes(name) + " is too long");
  std::string text(static_cast<size_t>(entry->bytes), '\0');
  POME_RETURN_IF_ERROR(
      file_.archive.source->read(entry->offset, std::as_writable_bytes(std::span(text))));
  return text;
}

// The small records beside the pickle: what kind of archive, and in which byte order.
Status FileParser::check_records(const std::string& root) const {
  if (file_.archive.find(root + "/constants.pkl")) {
    return cannot("this is a TorchScript program, not a checkpoint", kSaveAgain);
  }
  POME_ASSIGN_OR_RETURN(const std::string order, small_entry(root + "/byteorder"));
  if (order == "big") {
    return cannot("the numbers are stored in big-endian order",
                  "save the checkpoint again on a little-endian computer");
  }
  if (!order.empty() && order != "little") {
    return refuse(Refusal::kType, "the byte order is " + in_quotes(order));
  }
  POME_ASSIGN_OR_RETURN(const std::string version, small_entry(root + "/version"));
  uint64_t number = 0;
  for (const char c : version) {
    if (c < '0' || c > '9' || number > kMaxVersion) break;
    number = number * 10 + static_cast<uint64_t>(c - '0');
  }
  if (!version.empty() && (number == 0 || number > kMaxVersion)) {
    return refuse(Refusal::kVersion, "the archive has the format version " + in_quotes(version) +
                                         ", known are 1 to 10");
  }
  return {};
}

// docs/pytorch.md states the rule: through the wrappers, then the dictionary that is there.
Result<PickleRef> FileParser::find_state_dict(const Pickle& pickle) const {
  const PickleValues& values = pickle.values;
  const auto is_dict = [&](PickleRef ref) {
    return values.kind(ref) == PickleKind::kDict || values.kind(ref) == PickleKind::kOrderedDict;
  };
  PickleRef at = pickle.root;
  if (!is_dict(at)) {
    return cannot("the checkpoint holds a " + std::string(to_string(values.kind(at))) +
                      ", expected a dictionary of tensors",
                  kSaveAgain);
  }
  for (size_t depth = 0; depth <= kMaxWrappers; ++depth) {
    std::string_view found;
    PickleRef inner = at;
    const auto items = values.items(at);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (values.kind(items[i]) != PickleKind::kText || !is_dict(items[i + 1])) continue;
      const std::string_view key = values.text(items[i]);
      if (std::find(std::begin(kWrappers), std::end(kWrappers), key) == std::end(kWrappers))
        continue;
      if (!found.empty()) {
        return refuse(Refusal::kRange, "the checkpoint holds " + in_quotes(found) + " and " +
                                           in_quotes(key) + ": which one is the model?")
            .hint(kSaveAgain);
      }
      found = key;
      inner = items[i + 1];
    }
    if (found.empty()) return at;
    at = inner;
  }
  return refuse(Refusal::kDepth, "the weights are nested too deeply").hint(kSaveAgain);
}

Status FileParser::check_geometry(const StatedTensor& stated, const Storage& storage,
                                  uint64_t* elements) const {
  if (stated.sizes.size() != stated.strides.size()) {
    return refuse(Refusal::kBounds, "has " + std::to_string(stated.sizes.size()) +
                                        " dimensions, but " +
                                        std::to_string(stated.strides.size()) + " strides");
  }
  const auto item = static_cast<uint64_t>(bits_of(stated.dtype) / 8);
  const uint64_t room = storage.entry->bytes / item;
  std::optional<uint64_t> count = 1, reach = 1;
  if (stated.offset < 0) return refuse(Refusal::kBounds, "starts at a negative offset");
  bool empty = false;
  for (size_t i = 0; i < stated.sizes.size(); ++i) {
    if (stated.sizes[i] < 0 || stated.strides[i] < 0) {
      return refuse(Refusal::kBounds, "has a negative size or stride");
    }
    empty = empty || stated.sizes[i] == 0;
  }
  for (size_t i = 0; i < stated.sizes.size() && !empty; ++i) {
    const auto size = static_cast<uint64_t>(stated.sizes[i]);
    count = checked_mul(*count, size);
    const auto span = checked_mul(size - 1, static_cast<uint64_t>(stated.strides[i]));
    if (span) reach = checked_add(*reach, *span);
    if (!count || !span || !reach) {
      return refuse(Refusal::kOverflow, "has sizes and strides that exceed 64 bits");
    }
  }
  *elements = empty ? 0 : *count;
  const uint64_t needed = empty ? 0 : *reach;
  if (!span_fits(static_cast<uint64_t>(stated.offset), needed, room)) {
    return refuse(Refusal::kBounds, "reaches beyond its storage of " + std::to_string(room) +
                                        " elements: offset " + std::to_string(stated.offset) +
                                        ", sizes " + to_string(stated.sizes) + ", strides " +
                                        to_string(stated.strides));
  }
  if (*elements <= room) return {};
  return cannot(
      "is a view that repeats elements of its storage (strides " + to_string(stated.strides) + ")",
      "call .contiguous() on it before saving");
}

Result<PytorchTensor> FileParser::place(std::string name, const StatedTensor& stated,
                                        const Storage& storage) const {
  uint64_t elements = 0;
  POME_RETURN_IF_ERROR(check_geometry(stated, storage, &elements));
  const auto item = static_cast<uint64_t>(bits_of(stated.dtype) / 8);
  PytorchTensor out{std::move(name),
                    stated.dtype,
                    stated.sizes,
                    file_.archive.source,
                    storage.entry->offset + static_cast<uint64_t>(stated.offset) * item,
                    elements * item};
  int64_t expected = 1;
  bool in_order = true;
  for (size_t i = stated.sizes.size(); i-- > 0 && elements > 0;) {
    in_order = in_order && (stated.sizes[i] == 1 || stated.strides[i] == expected);
    expected *= stated.sizes[i];
  }
  if (in_order) return out;
  out.source = pytorch::strided_source(file_.archive.source, out.offset, static_cast<size_t>(item),
                                       stated.sizes, stated.strides, file_.archive.source->name());
  out.offset = 0;
  return out;
}

Status FileParser::take_tensors(const Pickle& pickle, PickleRef dict, const Objects& objects) {
  const PickleValues& values = pickle.values;
  const auto items = values.items(dict);
  size_t others = 0;
  std::string other;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const StatedTensor* stated = objects.tensor(values, items[i + 1]);
    const bool named = values.kind(items[i]) == PickleKind::kText;
    if (!stated || !named) {
      if (stated) return refuse(Refusal::kType, "the name of a tensor is no text");
      if (++others == 1 && named) other = values.text(items[i]);
      continue;
    }
    std::string name(values.text(items[i]));
    auto tensor = place(name, *stated, objects.storage(*stated));
    if (!tensor.ok()) {
      const Status& status = tensor.status();
      return Status(status.code(),
                    "tensor " + in_quotes(name) + " " + std::string(status.message()),
                    status.refusal())
          .in(status.file())
          .at_offset(objects.storage(*stated).entry->offset)
          .hint(status.hint());
    }
    file_.tensors.push_back(*std::move(tensor));
  }
  if (file_.tensors.empty()) {
    return cannot("there are no tensors in the checkpoint's dictionary", kSaveAgain);
  }
  if (others > 0) {
    file_.warnings.push_back(std::to_string(others) +
                             " entries of the checkpoint are no tensors (" + in_quotes(other) +
                             (others > 1 ? ", ...)" : ")") + " and were left out");
  }
  strip_prefixes();
  const auto duplicate = first_duplicate(
      file_.tensors.size(), [&](size_t i) { return std::string_view(file_.tensors[i].name); });
  if (!duplicate) return {};
  return refuse(Refusal::kDup,
                "tensor " + in_quotes(file_.tensors[*duplicate].name) + " is listed twice");
}

void FileParser::strip_prefixes() {
  for (const std::string_view prefix : kPrefixes) {
    const bool all =
        std::all_of(file_.tensors.begin(), file_.tensors.end(),
                    [&](const PytorchTensor& t) { return t.name.starts_with(prefix); });
    if (!all) continue;
    for (PytorchTensor& tensor : file_.tensors) tensor.name.erase(0, prefix.size());
    file_.warnings.push_back("every name starts with " + in_quotes(prefix) + ", which was removed");
  }
}

Result<PytorchFile> FileParser::parse() {
  POME_ASSIGN_OR_RETURN(const std::string root, find_root());
  POME_RETURN_IF_ERROR(check_records(root));
  const ZipEntry* entry = file_.archive.find(root + "/data.pkl");
  if (entry->bytes > kMaxPickleBytes) {
    return refuse(Refusal::kLimit, "data.pkl has " + std::to_string(entry->bytes) +
                                       " bytes, over the limit of " +
                                       std::to_string(kMaxPickleBytes));
  }
  POME_RETURN_IF_ERROR(check_zip_crc(file_.archive, *entry));
  Objects objects(file_.archive, root);
  auto pickle = read_pickle(
      sub_source(file_.archive.source, entry->offset, entry->bytes, file_.archive.source->name()),
      objects);
  if (!pickle.ok()) {
    const Refusal refusal = pickle.status().refusal();
    const bool foreign = refusal == Refusal::kGlobal || refusal == Refusal::kOpcode;
    return foreign ? std::move(pickle).status().hint(kSaveAgain) : std::move(pickle).status();
  }
  POME_ASSIGN_OR_RETURN(const PickleRef dict, find_state_dict(*pickle));
  POME_RETURN_IF_ERROR(take_tensors(*pickle, dict, objects));
  return std::move(file_);
}

std::string head_of(const ByteSource& source, size_t bytes) {
  std::string head(static_cast<size_t>(std::min<uint64_t>(source.size(), bytes)), '\0');
  if (!source.read(0, std::as_writable_bytes(std::span(head))).ok()) return {};
  return head;
}

bool is_pickle(std::string_view head) {
  return head.size() > 2 && head[0] == '\x80' && head[1] >= 1 && head[1] <= 5;
}
bool is_tar(std::string_view head) { return head.size() >= 262 && head.substr(257, 5) == "ustar"; }

// The forms before torch 1.6: a tar archive, or pickles one after the other of which the first is
// this number.
Status refuse_legacy(const ByteSource& source, std::string_view head) {
  constexpr std::string_view kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                                    15);
  const auto old_form = [&](std::string_view what) {
    return Status(StatusCode::kUnsupported, std::string(what), Refusal::kType)
        .in(source.name())
        .at_offset(0)
        .hint(
            "load it in PyTorch 1.6 or newer with torch.load(FILE, weights_only=True) and write "
            "it again with torch.save, or use the safetensors files of the model");
  };
  if (head.starts_with(kMagic)) {
    return old_form("this is a PyTorch checkpoint of the form before version 1.6");
  }
  if (is_tar(head)) return old_form("this is a tar archive, as PyTorch wrote before version 0.2");
  if (is_pickle(head)) {
    return bad_input(Refusal::kMagic, "this is a Python pickle, but no PyTorch checkpoint")
        .in(source.name())
        .at_offset(0)
        .hint("pome reads the zip archives of torch.save, safetensors and GGUF");
  }
  return {};
}

}  // namespace

bool looks_like_pytorch(const ByteSource& source) {
  const std::string head = head_of(source, 262);
  return head.starts_with(std::string_view("PK\x03\x04", 4)) || is_pickle(head) || is_tar(head);
}

Result<PytorchFile> read_pytorch(ByteSourcePtr source) {
  const std::string head = head_of(*source, 262);
  POME_RETURN_IF_ERROR(refuse_legacy(*source, head));
  if (!head.starts_with(std::string_view("PK", 2))) {
    POME_RETURN_IF_ERROR(check_not_placeholder(*source));
    if (head.size() < 4)
      return with_file_hint(bad_input(Refusal::kTrunc, "the file is too short")
                                .in(source->name())
                                .at_offset(head.size()));
    return with_file_hint(
        bad_input(Refusal::kMagic, "this is no zip archive, which torch.save writes")
            .in(source->name())
            .at_offset(0));
  }
  POME_ASSIGN_OR_RETURN(ZipFile archive, read_zip(std::move(source)));
  auto file = FileParser(std::move(archive)).parse();
  if (!file.ok()) return with_file_hint(std::move(file).status());
  return file;
}

Status check_checksums(const PytorchFile& file) {
  for (const ZipEntry& entry : file.archive.entries) {
    POME_RETURN_IF_ERROR(check_zip_crc(file.archive, entry));
  }
  return {};
}

}  // namespace pome
