#include "tokenizer/named_templates.h"

namespace pome {
namespace {

struct NamedTemplate {
  std::string_view name, jinja;
};

// Those whose convention has no place for a system message put it in front of the first message.
constexpr NamedTemplate kTemplates[] = {
    {"alpaca",
     "{% for m in messages %}"
     "{% if m.role == 'user' %}{{ '### Instruction:\\n' + m.content + '\\n\\n' }}"
     "{% elif m.role == 'assistant' %}{{ '### Response:\\n' + m.content + '\\n\\n' }}"
     "{% else %}{{ m.content + '\\n\\n' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"},
    {"chatml",
     "{% for m in messages %}"
     "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"gemma",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}"
     "{% else %}{{ '<start_of_turn>' }}"
     "{% if m.role == 'assistant' %}{{ 'model' }}{% else %}{{ 'user' }}{% endif %}{{ '\\n' }}"
     "{% if m.role == 'user' %}{{ ns.system }}{% set ns.system = '' %}{% endif %}"
     "{{ m.content | trim }}{{ '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
    {"llama2",
     "{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}"
     "{% set ns.system = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}"
     "{% elif m.role == 'user' %}{{ bos_token }}{{ '[INST] ' }}{{ ns.system }}"
     "{% set ns.system = '' %}{{ m.content | trim }}{{ ' [/INST]' }}"
     "{% else %}{{ ' ' }}{{ m.content | trim }}{{ ' ' }}{{ eos_token }}{% endif %}{% endfor %}"},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}{{ m.content | trim }}"
     "{{ '<|eot_id|>' }}{% endfor %}"
     "{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"mistral",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}"
     "{% elif m.role == 'user' %}{{ '[INST] ' }}{{ ns.system }}{% set ns.system = '' %}"
     "{{ m.content }}{{ ' [/INST]' }}"
     "{% else %}{{ ' ' }}{{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"},
    {"phi3",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
    {"vicuna",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
     "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' }}{{ m.content | trim }}{{ eos_token }}"
     "{% else %}{{ m.content + ' ' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"},
    {"zephyr",
     "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}{{ eos_token }}{{ '\\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
};

}  // namespace

std::optional<std::string_view> named_template(std::string_view name) {
  for (const NamedTemplate& one : kTemplates)
    if (one.name == name) return one.jinja;
  return std::nullopt;
}

std::string named_template_list() {
  std::string out;
  for (const NamedTemplate& one : kTemplates) {
    if (!out.empty()) out += ", ";
    out += one.name;
  }
  return out;
}

}  // namespace pome
