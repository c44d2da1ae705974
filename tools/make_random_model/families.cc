#include "families.h"

namespace pome::random_model {
namespace {

using D = Dim;
using R = Role;

constexpr Row kBefore[] = {
    {"model.embed_tokens.weight", "token_embd.weight", D::kVocab, D::kHidden, R::kEmbedding,
     Part::kTokenEmbedding},
};
constexpr Row kAfter[] = {
    {"model.norm.weight", "output_norm.weight", D::kHidden, D::kNone, R::kNorm},
    {"lm_head.weight", "output.weight", D::kVocab, D::kHidden, R::kInput, Part::kHead},
};
constexpr Row kLlamaLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight", D::kHidden, D::kNone, R::kNorm},
    {"self_attn.q_proj.weight", "attn_q.weight", D::kQ, D::kHidden, R::kInput},
    {"self_attn.k_proj.weight", "attn_k.weight", D::kKv, D::kHidden, R::kInput},
    {"self_attn.v_proj.weight", "attn_v.weight", D::kKv, D::kHidden, R::kInput, Part::kAttentionV},
    {"self_attn.o_proj.weight", "attn_output.weight", D::kHidden, D::kQ, R::kResidual,
     Part::kAttentionOutput},
    {"post_attention_layernorm.weight", "ffn_norm.weight", D::kHidden, D::kNone, R::kNorm},
    {"mlp.gate_proj.weight", "ffn_gate.weight", D::kFf, D::kHidden, R::kInput},
    {"mlp.up_proj.weight", "ffn_up.weight", D::kFf, D::kHidden, R::kInput},
    {"mlp.down_proj.weight", "ffn_down.weight", D::kHidden, D::kFf, R::kResidual, Part::kDown},
};
constexpr Row kPhi3Layer[] = {
    {"input_layernorm.weight", "attn_norm.weight", D::kHidden, D::kNone, R::kNorm},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", D::kQkv, D::kHidden, R::kInput,
     Part::kAttentionV},
    {"self_attn.o_proj.weight", "attn_output.weight", D::kHidden, D::kQ, R::kResidual,
     Part::kAttentionOutput},
    {"post_attention_layernorm.weight", "ffn_norm.weight", D::kHidden, D::kNone, R::kNorm},
    {"mlp.gate_up_proj.weight", "ffn_up.weight", D::kTwoFf, D::kHidden, R::kInput},
    {"mlp.down_proj.weight", "ffn_down.weight", D::kHidden, D::kFf, R::kResidual, Part::kDown},
};

// Norm gains are stored minus one.
constexpr Row kGemmaLayer[] = {
    {"input_layernorm.weight", "", D::kHidden, D::kNone, R::kSmall},
    {"self_attn.q_proj.weight", "", D::kQ, D::kHidden, R::kInput},
    {"self_attn.k_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.v_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.o_proj.weight", "", D::kHidden, D::kQ, R::kResidual},
    {"post_attention_layernorm.weight", "", D::kHidden, D::kNone, R::kSmall},
    {"mlp.gate_proj.weight", "", D::kFf, D::kHidden, R::kInput},
    {"mlp.up_proj.weight", "", D::kFf, D::kHidden, R::kInput},
    {"mlp.down_proj.weight", "", D::kHidden, D::kFf, R::kResidual},
};
constexpr Row kGemmaAfter[] = {
    {"model.norm.weight", "", D::kHidden, D::kNone, R::kSmall},
    {"lm_head.weight", "", D::kVocab, D::kHidden, R::kInput, Part::kHead},
};

constexpr Row kPhiLayer[] = {
    {"input_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
    {"input_layernorm.bias", "", D::kHidden, D::kNone, R::kSmall},
    {"self_attn.q_proj.weight", "", D::kQ, D::kHidden, R::kInput},
    {"self_attn.q_proj.bias", "", D::kQ, D::kNone, R::kSmall},
    {"self_attn.k_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.k_proj.bias", "", D::kKv, D::kNone, R::kSmall},
    {"self_attn.v_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.v_proj.bias", "", D::kKv, D::kNone, R::kSmall},
    {"self_attn.dense.weight", "", D::kHidden, D::kQ, R::kResidual},
    {"self_attn.dense.bias", "", D::kHidden, D::kNone, R::kSmall},
    {"mlp.fc1.weight", "", D::kFf, D::kHidden, R::kInput},
    {"mlp.fc1.bias", "", D::kFf, D::kNone, R::kSmall},
    {"mlp.fc2.weight", "", D::kHidden, D::kFf, R::kResidual},
    {"mlp.fc2.bias", "", D::kHidden, D::kNone, R::kSmall},
};
constexpr Row kPhiAfter[] = {
    {"model.final_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
    {"model.final_layernorm.bias", "", D::kHidden, D::kNone, R::kSmall},
    {"lm_head.weight", "", D::kVocab, D::kHidden, R::kInput, Part::kHead},
    {"lm_head.bias", "", D::kVocab, D::kNone, R::kSmall, Part::kHead},
};

// Experts as published: 32 weights of a row are 16 bytes of *_blocks and one byte of *_scales.
constexpr Row kGptOssLayer[] = {
    {"input_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
    {"self_attn.q_proj.weight", "", D::kQ, D::kHidden, R::kInput},
    {"self_attn.q_proj.bias", "", D::kQ, D::kNone, R::kSmall},
    {"self_attn.k_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.k_proj.bias", "", D::kKv, D::kNone, R::kSmall},
    {"self_attn.v_proj.weight", "", D::kKv, D::kHidden, R::kInput},
    {"self_attn.v_proj.bias", "", D::kKv, D::kNone, R::kSmall},
    {"self_attn.o_proj.weight", "", D::kHidden, D::kQ, R::kResidual},
    {"self_attn.o_proj.bias", "", D::kHidden, D::kNone, R::kSmall},
    {"self_attn.sinks", "", D::kHeads, D::kNone, R::kSmall},
    {"post_attention_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
    {"mlp.router.weight", "", D::kExperts, D::kHidden, R::kInput},
    {"mlp.router.bias", "", D::kExperts, D::kNone, R::kSmall},
    {"mlp.experts.gate_up_proj_blocks", "", D::kTwoExpertFf, D::kHidden, R::kInput, Part::kOther,
     D::kExperts, Stored::kMxfp4Blocks},
    {"mlp.experts.gate_up_proj_scales", "", D::kTwoExpertFf, D::kHidden, R::kInput, Part::kOther,
     D::kExperts, Stored::kMxfp4Scales},
    {"mlp.experts.gate_up_proj_bias", "", D::kExperts, D::kTwoExpertFf, R::kSmall},
    {"mlp.experts.down_proj_blocks", "", D::kHidden, D::kExpertFf, R::kResidual, Part::kOther,
     D::kExperts, Stored::kMxfp4Blocks},
    {"mlp.experts.down_proj_scales", "", D::kHidden, D::kExpertFf, R::kResidual, Part::kOther,
     D::kExperts, Stored::kMxfp4Scales},
    {"mlp.experts.down_proj_bias", "", D::kExperts, D::kHidden, R::kSmall},
};

constexpr Row kLatentAttention[] = {
    {"input_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
    {"self_attn.q_proj.weight", "", D::kLatentQ, D::kHidden, R::kInput},
    {"self_attn.kv_a_proj_with_mqa.weight", "", D::kLatentIn, D::kHidden, R::kInput},
    {"self_attn.kv_a_layernorm.weight", "", D::kLatent, D::kNone, R::kNorm},
    {"self_attn.kv_b_proj.weight", "", D::kLatentOut, D::kLatent, R::kInput},
    {"self_attn.o_proj.weight", "", D::kHidden, D::kLatentHeads, R::kResidual},
    {"post_attention_layernorm.weight", "", D::kHidden, D::kNone, R::kNorm},
};
constexpr Row kDeepseekDense[] = {
    kLatentAttention[0],
    kLatentAttention[1],
    kLatentAttention[2],
    kLatentAttention[3],
    kLatentAttention[4],
    kLatentAttention[5],
    kLatentAttention[6],
    {"mlp.gate_proj.weight", "", D::kFf, D::kHidden, R::kInput},
    {"mlp.up_proj.weight", "", D::kFf, D::kHidden, R::kInput},
    {"mlp.down_proj.weight", "", D::kHidden, D::kFf, R::kResidual},
};
constexpr Row kDeepseekLayer[] = {
    kLatentAttention[0],
    kLatentAttention[1],
    kLatentAttention[2],
    kLatentAttention[3],
    kLatentAttention[4],
    kLatentAttention[5],
    kLatentAttention[6],
    {"mlp.gate.weight", "", D::kExperts, D::kHidden, R::kInput},
    {"mlp.experts.@.gate_proj.weight", "", D::kExpertFf, D::kHidden, R::kInput},
    {"mlp.experts.@.up_proj.weight", "", D::kExpertFf, D::kHidden, R::kInput},
    {"mlp.experts.@.down_proj.weight", "", D::kHidden, D::kExpertFf, R::kResidual},
    {"mlp.shared_experts.gate_proj.weight", "", D::kSharedFf, D::kHidden, R::kInput},
    {"mlp.shared_experts.up_proj.weight", "", D::kSharedFf, D::kHidden, R::kInput},
    {"mlp.shared_experts.down_proj.weight", "", D::kHidden, D::kSharedFf, R::kResidual},
};

constexpr Family kFamilies[] = {
    {"llama", kBefore, kLlamaLayer, kAfter, {}, true, false},
    {"phi3", kBefore, kPhi3Layer, kAfter, {}, true, false},
    {"phi", kBefore, kPhiLayer, kPhiAfter, {}, false, true},
    {"gemma", kBefore, kGemmaLayer, kGemmaAfter, {}, false, false},
    {"gpt_oss", kBefore, kGptOssLayer, kAfter, {}, false, true},
    {"deepseek_v2", kBefore, kDeepseekLayer, kAfter, kDeepseekDense, false, false},
};

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

std::string family_names() {
  std::string names;
  for (const Family& family : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(family.model_type);
  }
  return names;
}

}  // namespace pome::random_model
