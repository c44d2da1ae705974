// Errors of the whole library: Status, Result<T>, the refusal names of malformed input, and
// POME_CHECK.
//
// Everything that depends on input, files or the user returns Status or Result. POME_CHECK is for
// our own bugs only. The library never prints, never exits and never uses assert on file contents.
// Thread safety: values; a Status is immutable once returned.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace pome {

// What kind of failure; exit_code() maps it to the process exit code (docs/architecture.md).
enum class StatusCode : uint8_t {
  kOk,
  kGateFailed,   // a check that the user asked for did not pass          exit 1
  kUsage,        // the call itself is wrong                              exit 2
  kExists,       // the output exists and --force was not given           exit 2
  kBadInput,     // a file is malformed or does not mean what it should   exit 3
  kMissing,      // a file or model is not there                          exit 3
  kDoesNotFit,   // memory, disk, budget, device                          exit 4
  kUnsupported,  // well formed, but pome cannot do it                    exit 5
  kUnavailable,  // network or busy                                       exit 6
  kInterrupted,  // the user stopped it                                   exit 130
};
int exit_code(StatusCode code);

// Why an input was refused: the public names of the negative-input contract (docs/errors.md).
enum class Refusal : uint8_t {
  kNone,
  kTrunc,
  kMagic,
  kVersion,
  kLimit,
  kOverflow,
  kBounds,
  kOverlap,
  kHole,
  kDup,
  kType,
  kUtf8,
  kDepth,
  kRange,
  kPath,
  kLink,
  kBomb,
  kOpcode,
  kGlobal,
  kTemplate,
  kRegex,
  kIntegrity,
  kNet,
  kStore,
};
std::string_view to_string(Refusal refusal);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(StatusCode code, std::string message, Refusal refusal = Refusal::kNone);

  bool ok() const { return detail_ == nullptr; }
  StatusCode code() const { return detail_ ? detail_->code : StatusCode::kOk; }
  Refusal refusal() const { return detail_ ? detail_->refusal : Refusal::kNone; }
  // What was expected and what was found, without file and place.
  std::string_view message() const;
  std::string_view file() const;
  // Byte offset ("offset 123"), JSON path ("/model/vocab"), tensor name, line and column.
  std::string_view where() const;
  std::string_view hint() const;  // the next step to take
  std::optional<uint64_t> offset() const;

  // Each adds what is known one level up and keeps what is already set.
  Status&& in(std::string_view file) &&;
  Status&& at(std::string_view where) &&;
  Status&& at_offset(uint64_t offset) &&;
  Status&& hint(std::string_view next_step) &&;

  // One line: "file: where: message; hint". Control bytes that came from a file are escaped.
  std::string to_string() const;

 private:
  struct Detail {
    StatusCode code;
    Refusal refusal;
    std::string message, file, where, hint;
    std::optional<uint64_t> offset;
  };
  std::shared_ptr<Detail> detail_;
};

inline Status ok_status() { return {}; }
Status bad_input(Refusal refusal, std::string message);
Status missing(std::string message);
Status unsupported(std::string message);
Status usage_error(std::string message);
Status does_not_fit(std::string message);
Status gate_failed(std::string message);

// "\x1b" and friends become visible text; the result is valid UTF-8 and at most max_bytes long.
std::string escape_for_terminal(std::string_view text, size_t max_bytes = 256);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : data_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Status status) : data_(std::move(status)) {}  // NOLINT: implicit on purpose
  bool ok() const { return data_.index() == 0; }
  const Status& status() const& {
    static const Status kOkStatus;
    return ok() ? kOkStatus : std::get<1>(data_);
  }
  Status status() && { return ok() ? Status() : std::move(std::get<1>(data_)); }
  T& value() & { return std::get<0>(data_); }
  const T& value() const& { return std::get<0>(data_); }
  T&& value() && { return std::move(std::get<0>(data_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> data_;
};

[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace pome

// For invariants of our own code, never for input.
#define POME_CHECK(condition) \
  ((condition) ? (void)0 : ::pome::check_failed(#condition, __FILE__, __LINE__))

#define POME_CONCAT_INNER(a, b) a##b
#define POME_CONCAT(a, b) POME_CONCAT_INNER(a, b)
#define POME_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                    \
    if (::pome::Status pome_status = (expression); !pome_status.ok()) return pome_status; \
  } while (0)
#define POME_ASSIGN_OR_RETURN_IMPL(tmp, declaration, expression) \
  auto tmp = (expression);                                       \
  if (!tmp.ok()) return std::move(tmp).status();                 \
  declaration = std::move(tmp).value()
#define POME_ASSIGN_OR_RETURN(declaration, expression) \
  POME_ASSIGN_OR_RETURN_IMPL(POME_CONCAT(pome_result_, __LINE__), declaration, expression)
