// GroupQueryAttention of com.microsoft: rotations, caches and attention in one operator.
#include <algorithm>
#include <cmath>

#include "interp/onnx_ops.h"

namespace pome::onnx_ops {
namespace {

struct Sizes {
  int64_t batch = 0, tokens = 0, past = 0, total = 0, heads = 0, kv_heads = 0, dim = 0;
};

Result<Sizes> sizes_of(const Call& call) {
  Sizes s;
  const Tensor& q = call.in(0);
  s.heads = call.integer("num_heads", 0);
  s.kv_heads = call.integer("kv_num_heads", 0);
  if (q.rank() != 3 || s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads != 0 ||
      q.dim(2) % s.heads != 0)
    return bad_operand(0, "is not [batch, tokens, heads * size]");
  s.batch = q.dim(0);
  s.tokens = q.dim(1);
  s.dim = q.dim(2) / s.heads;
  for (size_t i = 1; i <= 2; ++i)
    if (!call.has(i) || call.in(i).shape() != Shape{s.batch, s.tokens, s.kv_heads * s.dim})
      return bad_operand(i, "is not [batch, tokens, kv heads * size]");
  for (size_t i = 3; i <= 4; ++i) {
    if (!call.has(i)) return bad_operand(i, "is missing");
    const Shape& shape = call.in(i).shape();
    if (shape.size() != 4 || shape[0] != s.batch || shape[1] != s.kv_heads || shape[3] != s.dim)
      return bad_operand(i, "is not [batch, kv heads, past, size]");
  }
  s.past = call.in(3).dim(2);
  if (call.in(4).dim(2) != s.past) return bad_operand(4, "is as long as no other cache");
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> total, call.ints(6));
  if (total.size() != 1 || total[0] != s.past + s.tokens)
    return bad_operand(6, "is not the length of past and new tokens");
  s.total = total[0];
  return s;
}

// Turns `count` values of one head at `position`; what lies behind the tables passes through.
void rotate(float* head, std::span<const float> cosine, std::span<const float> sine,
            bool interleaved) {
  const size_t half = cosine.size();
  for (size_t i = 0; i < half; ++i) {
    float& a = head[interleaved ? 2 * i : i];
    float& b = head[interleaved ? 2 * i + 1 : i + half];
    const float first = a * cosine[i] - b * sine[i];
    b = b * cosine[i] + a * sine[i];
    a = first;
  }
}

Status rotate_all(const Call& call, const Sizes& s, const std::vector<int64_t>& lengths, Tensor* q,
                  Tensor* k) {
  if (call.integer("do_rotary", 0) == 0) return {};
  if (!call.has(7) || !call.has(8)) return bad_operand(7, "is missing");
  POME_ASSIGN_OR_RETURN(const Tensor cosine, call.floats(7));
  POME_ASSIGN_OR_RETURN(const Tensor sine, call.floats(8));
  if (cosine.rank() != 2 || cosine.shape() != sine.shape() || 2 * cosine.dim(1) > s.dim)
    return bad_operand(7, "is no table of rotations");
  const size_t half = static_cast<size_t>(cosine.dim(1));
  const bool interleaved = call.integer("rotary_interleaved", 0) != 0;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t position = lengths[static_cast<size_t>(b)] + 1 - s.tokens + t;
      if (position < 0 || position >= cosine.dim(0))
        return bad_operand(7, "has no position " + std::to_string(position));
      const size_t row = static_cast<size_t>(position) * half;
      for (const auto& [tensor, heads] : {std::pair(q, s.heads), std::pair(k, s.kv_heads)})
        for (int64_t h = 0; h < heads; ++h)
          rotate(tensor->mutable_as<float>().data() + ((b * s.tokens + t) * heads + h) * s.dim,
                 cosine.f32().subspan(row, half), sine.f32().subspan(row, half), interleaved);
    }
  }
  return {};
}

// past [B, H, P, D] with the new rows [B, T, H, D] behind what counts of each sequence.
Tensor append(const Sizes& s, const Tensor& past, const Tensor& fresh,
              const std::vector<int64_t>& lengths) {
  Tensor out = Tensor::zeros(DType::kF32, {s.batch, s.kv_heads, s.total, s.dim});
  auto to = out.mutable_as<float>();
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t before = lengths[static_cast<size_t>(b)] + 1 - s.tokens;
    for (int64_t h = 0; h < s.kv_heads; ++h) {
      const int64_t head = b * s.kv_heads + h;
      std::copy_n(past.f32().begin() + head * s.past * s.dim, before * s.dim,
                  to.begin() + head * s.total * s.dim);
      for (int64_t t = 0; t < s.tokens; ++t)
        std::copy_n(fresh.f32().begin() + ((b * s.tokens + t) * s.kv_heads + h) * s.dim, s.dim,
                    to.begin() + (head * s.total + before + t) * s.dim);
    }
  }
  return out;
}

class Attention {
 public:
  Attention(const Call& call, const Sizes& sizes)
      : s_(sizes),
        softcap_(call.number("softcap", 0)),
        window_(call.integer("local_window_size", -1)) {
    const double scale = call.number("scale", 0);
    scale_ = scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(sizes.dim));
  }

  // One query of one head over keys [first, last).
  void run(const float* q, const float* keys, const float* values, int64_t at, const float* sink,
           float* out) {
    const int64_t first = window_ > 0 ? std::max<int64_t>(0, at - window_ + 1) : 0;
    scores_.assign(static_cast<size_t>(at + 1), 0);
    double largest = sink != nullptr ? *sink : -HUGE_VAL;
    for (int64_t j = first; j <= at; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < s_.dim; ++d) sum += static_cast<double>(q[d]) * keys[j * s_.dim + d];
      sum *= scale_;
      if (softcap_ > 0) sum = softcap_ * std::tanh(sum / softcap_);
      scores_[static_cast<size_t>(j)] = sum;
      largest = std::max(largest, sum);
    }
    double total = sink != nullptr ? std::exp(*sink - largest) : 0;
    for (int64_t j = first; j <= at; ++j)
      total += scores_[static_cast<size_t>(j)] =
          std::exp(scores_[static_cast<size_t>(j)] - largest);
    for (int64_t d = 0; d < s_.dim; ++d) {
      double sum = 0;
      for (int64_t j = first; j <= at; ++j)
        sum += scores_[static_cast<size_t>(j)] * values[j * s_.dim + d];
      out[d] = static_cast<float>(sum / total);
    }
  }

 private:
  const Sizes& s_;
  double scale_ = 1, softcap_ = 0;
  int64_t window_ = -1;
  std::vector<double> scores_;
};

Status check_supported(const Call& call) {
  for (const size_t i : {size_t{9}, size_t{10}, size_t{12}, size_t{13}, size_t{14}, size_t{15}})
    if (call.has(i)) return bad_operand(i, "is not supported");
  if (call.integer("smooth_softmax", 0) > 0) return bad_operand(0, "asks for a smooth softmax");
  return {};
}

Status group_query_attention(Call& call) {
  POME_RETURN_IF_ERROR(check_supported(call));
  POME_ASSIGN_OR_RETURN(const Sizes s, sizes_of(call));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, call.ints(5));  // minus 1
  if (static_cast<int64_t>(lengths.size()) != s.batch) return bad_operand(5, "is not [batch]");
  for (const int64_t length : lengths)
    if (length < s.tokens - 1 || length >= s.total)
      return unsupported("sequences of a batch that differ in their new tokens");
  POME_ASSIGN_OR_RETURN(Tensor q, call.floats(0));
  POME_ASSIGN_OR_RETURN(Tensor k, call.floats(1));
  POME_ASSIGN_OR_RETURN(const Tensor v, call.floats(2));
  POME_ASSIGN_OR_RETURN(const Tensor past_key, call.floats(3));
  POME_ASSIGN_OR_RETURN(const Tensor past_value, call.floats(4));
  Tensor sinks;
  if (call.has(11)) {
    POME_ASSIGN_OR_RETURN(sinks, call.floats(11));
    if (sinks.shape() != Shape{s.heads}) return bad_operand(11, "is not [heads]");
  }
  q = q.clone();
  k = k.clone();
  POME_RETURN_IF_ERROR(rotate_all(call, s, lengths, &q, &k));
  const Tensor keys = append(s, past_key, k, lengths), values = append(s, past_value, v, lengths);
  Tensor out = Tensor::zeros(DType::kF32, q.shape());
  const int64_t groups = s.heads / s.kv_heads;
  Attention attention(call, s);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t at = lengths[static_cast<size_t>(b)] + 1 - s.tokens + t;
      for (int64_t h = 0; h < s.heads; ++h) {
        const int64_t place = ((b * s.tokens + t) * s.heads + h) * s.dim;
        const int64_t cache = (b * s.kv_heads + h / groups) * s.total * s.dim;
        attention.run(q.f32().data() + place, keys.f32().data() + cache,
                      values.f32().data() + cache, at,
                      sinks.defined() ? sinks.f32().data() + h : nullptr,
                      out.mutable_as<float>().data() + place);
      }
    }
  }
  call.emit(rounded_to(out, call.in(0).dtype()));
  call.emit(rounded_to(keys, call.in(3).dtype()));
  call.emit(rounded_to(values, call.in(4).dtype()));
  return {};
}

constexpr OpSpec kOps[] = {
    {onnx::kMicrosoft, "GroupQueryAttention", 7, 16, group_query_attention},
};

}  // namespace

std::span<const OpSpec> attention_ops() { return kOps; }

}  // namespace pome::onnx_ops
