// Streams of codes of 1 to 8 bits, lowest bit first: eight codes are `bits` bytes whatever the
// width, so a word of eight bytes is narrowed or widened at once, in three steps that join (or
// part) neighbours of 1, 2 and 4 codes.
#include <algorithm>
#include <cstring>

#include "tensor/tensor.h"

namespace pome {
namespace {

constexpr uint64_t low_bits(int count) {
  return count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}
// The low `width` bits of every lane of `lane` bits.
constexpr uint64_t lanes(int lane, int width) {
  uint64_t mask = 0;
  for (int at = 0; at < 64; at += lane) mask |= low_bits(width) << at;
  return mask;
}

// Joins the two halves of every lane of 2 * kHalf bits, each with kWidth bits in use.
template <int kHalf, int kWidth>
uint64_t join(uint64_t word) {
  const uint64_t low = word & lanes(2 * kHalf, kWidth);
  return low | (word & lanes(2 * kHalf, kWidth) << kHalf) >> (kHalf - kWidth);
}
// The reverse.
template <int kHalf, int kWidth>
uint64_t part(uint64_t word) {
  const uint64_t low = word & lanes(2 * kHalf, kWidth);
  return low | (word & lanes(2 * kHalf, kWidth) << kWidth) << (kHalf - kWidth);
}

template <int kBits>
uint64_t narrow(uint64_t codes) {
  return join<32, 4 * kBits>(join<16, 2 * kBits>(join<8, kBits>(codes)));
}
template <int kBits>
uint64_t widen(uint64_t stream) {
  return part<8, kBits>(part<16, 2 * kBits>(part<32, 4 * kBits>(stream)));
}

template <int kBits>
void pack(const uint8_t* codes, size_t count, std::byte* out) {
  uint64_t word;
  size_t i = 0;
  for (; i + 8 <= count; i += 8, out += kBits) {
    std::memcpy(&word, codes + i, 8);
    word = narrow<kBits>(word);
    std::memcpy(out, &word, kBits);
  }
  if (i == count) return;
  word = 0;
  std::memcpy(&word, codes + i, count - i);
  word = narrow<kBits>(word);
  std::memcpy(out, &word, ((count - i) * kBits + 7) / 8);
}

// From a whole byte on; reads no byte beyond the last code's.
template <int kBits>
void unpack(const std::byte* in, size_t count, uint8_t* codes) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8, in += kBits) {
    uint64_t word = 0;
    std::memcpy(&word, in, kBits);
    word = widen<kBits>(word);
    std::memcpy(codes + i, &word, 8);
  }
  if (i == count) return;
  uint64_t word = 0;
  std::memcpy(&word, in, ((count - i) * kBits + 7) / 8);
  word = widen<kBits>(word);
  std::memcpy(codes + i, &word, count - i);
}

// Calls use.operator()<bits>().
template <typename Use>
void with_width(int bits, const Use& use) {
  switch (bits) {
    case 1:
      return use.template operator()<1>();
    case 2:
      return use.template operator()<2>();
    case 3:
      return use.template operator()<3>();
    case 4:
      return use.template operator()<4>();
    case 5:
      return use.template operator()<5>();
    case 6:
      return use.template operator()<6>();
    case 7:
      return use.template operator()<7>();
    default:
      return use.template operator()<8>();
  }
}

}  // namespace

void pack_bits(std::span<const uint8_t> codes, int bits, std::span<std::byte> out) {
  POME_CHECK(bits >= 1 && bits <= 8);
  POME_CHECK(out.size() == (codes.size() * static_cast<size_t>(bits) + 7) / 8);
  with_width(bits, [&]<int kBits>() { pack<kBits>(codes.data(), codes.size(), out.data()); });
}

void unpack_bits(std::span<const std::byte> stream, int bits, int64_t first,
                 std::span<uint8_t> codes) {
  POME_CHECK(bits >= 1 && bits <= 8 && first >= 0);
  if (codes.empty()) return;
  const uint64_t width = static_cast<uint64_t>(bits);
  const uint64_t begin = static_cast<uint64_t>(first) * width;
  POME_CHECK((begin + codes.size() * width + 7) / 8 <= stream.size());
  // Up to seven codes one by one, to where a code starts on a whole byte.
  const size_t single =
      std::min(codes.size(), static_cast<size_t>((8 - static_cast<uint64_t>(first) % 8) % 8));
  const std::byte* const bytes = stream.data();
  for (size_t i = 0; i < single; ++i) {
    const uint64_t bit = begin + i * width;
    uint32_t word = std::to_integer<uint32_t>(bytes[bit / 8]);
    if (bit % 8 + width > 8) word |= std::to_integer<uint32_t>(bytes[bit / 8 + 1]) << 8;
    codes[i] = static_cast<uint8_t>(word >> bit % 8 & ((1u << bits) - 1));
  }
  const std::span<uint8_t> rest = codes.subspan(single);
  if (rest.empty()) return;
  const std::byte* const from = bytes + (begin + single * width) / 8;
  with_width(bits, [&]<int kBits>() { unpack<kBits>(from, rest.size(), rest.data()); });
}

}  // namespace pome
