// Chat templates of widely used conventions, by name, for models whose files bring none.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pome {

// Jinja source; nullopt for a name that is not known.
std::optional<std::string_view> named_template(std::string_view name);
std::string named_template_list();  // "alpaca, chatml, ..."

}  // namespace pome
