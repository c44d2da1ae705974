// strftime in English, whatever the locale of the process is.
#include <algorithm>
#include <ctime>

#include "tokenizer/jinja/format.h"

namespace pome::jinja {
namespace {

constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                 "Thursday", "Friday", "Saturday"};
constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                   "May",       "June",     "July",     "August",
                                   "September", "October",  "November", "December"};

std::string number(int value, size_t width, char pad = '0') {
  std::string out = std::to_string(value);
  return out.size() < width ? std::string(width - out.size(), pad) + out : out;
}

// Number of the week that begins on `first` (0 = Sunday) in the year.
int week(const std::tm& time, int first) {
  return (time.tm_yday + 7 - (time.tm_wday - first + 7) % 7) / 7;
}

// Year and number of the week of ISO 8601.
void iso_week(const std::tm& time, int& year, int& week) {
  const int weekday = (time.tm_wday + 6) % 7;
  year = time.tm_year + 1900;
  week = (time.tm_yday - weekday + 10) / 7;
  const auto weeks_in = [&](int y) {
    const auto p = [](int v) { return (v + v / 4 - v / 100 + v / 400) % 7; };
    return p(y) == 4 || p(y - 1) == 3 ? 53 : 52;
  };
  if (week < 1) {
    --year;
    week = weeks_in(year);
  } else if (week > weeks_in(year)) {
    ++year;
    week = 1;
  }
}

std::string directive(char c, const std::tm& time, int64_t seconds) {
  const int hour12 = time.tm_hour % 12 == 0 ? 12 : time.tm_hour % 12;
  const int year = time.tm_year + 1900;
  const auto date = [&] {
    return number(time.tm_mon + 1, 2) + "/" + number(time.tm_mday, 2) + "/" + number(year % 100, 2);
  };
  const auto clock = [&](bool with_seconds) {
    return number(time.tm_hour, 2) + ":" + number(time.tm_min, 2) +
           (with_seconds ? ":" + number(time.tm_sec, 2) : "");
  };
  int iso_year = 0, iso = 0;
  iso_week(time, iso_year, iso);
  const std::string month = kMonths[time.tm_mon], day = kDays[time.tm_wday];
  switch (c) {
    case 'a':
      return day.substr(0, 3);
    case 'A':
      return day;
    case 'b':
    case 'h':
      return month.substr(0, 3);
    case 'B':
      return month;
    case 'c':
      return day.substr(0, 3) + " " + month.substr(0, 3) + " " + number(time.tm_mday, 2, ' ') +
             " " + clock(true) + " " + std::to_string(year);
    case 'C':
      return number(year / 100, 2);
    case 'd':
      return number(time.tm_mday, 2);
    case 'D':
    case 'x':
      return date();
    case 'e':
      return number(time.tm_mday, 2, ' ');
    case 'f':
      return "000000";
    case 'F':
      return std::to_string(year) + "-" + number(time.tm_mon + 1, 2) + "-" +
             number(time.tm_mday, 2);
    case 'g':
      return number(iso_year % 100, 2);
    case 'G':
      return std::to_string(iso_year);
    case 'H':
      return number(time.tm_hour, 2);
    case 'I':
      return number(hour12, 2);
    case 'j':
      return number(time.tm_yday + 1, 3);
    case 'k':
      return number(time.tm_hour, 2, ' ');
    case 'l':
      return number(hour12, 2, ' ');
    case 'm':
      return number(time.tm_mon + 1, 2);
    case 'M':
      return number(time.tm_min, 2);
    case 'n':
      return "\n";
    case 'p':
      return time.tm_hour < 12 ? "AM" : "PM";
    case 'P':
      return time.tm_hour < 12 ? "am" : "pm";
    case 'r':
      return number(hour12, 2) + ":" + number(time.tm_min, 2) + ":" + number(time.tm_sec, 2) +
             (time.tm_hour < 12 ? " AM" : " PM");
    case 'R':
      return clock(false);
    case 's':
      return std::to_string(seconds);
    case 'S':
      return number(time.tm_sec, 2);
    case 't':
      return "\t";
    case 'T':
    case 'X':
      return clock(true);
    case 'u':
      return std::to_string(time.tm_wday == 0 ? 7 : time.tm_wday);
    case 'U':
      return number(week(time, 0), 2);
    case 'V':
      return number(iso, 2);
    case 'w':
      return std::to_string(time.tm_wday);
    case 'W':
      return number(week(time, 1), 2);
    case 'y':
      return number(year % 100, 2);
    case 'Y':
      return std::to_string(year);
    case 'z':
    case 'Z':
      return "";
    case '%':
      return "%";
    default:
      return std::string("%") + c;
  }
}

}  // namespace

std::string time_format(std::string_view pattern, int64_t seconds) {
  // The years 1 to 9999, as Python has them.
  seconds = std::clamp<int64_t>(seconds, -62135596800, 253402300799);
  const std::time_t moment = static_cast<std::time_t>(seconds);
  std::tm time{};
  gmtime_r(&moment, &time);
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    // "%-d" leaves the padding out.
    const bool bare = pattern[i + 1] == '-' && i + 2 < pattern.size();
    i += bare ? 2 : 1;
    std::string part = directive(pattern[i], time, seconds);
    if (bare) {
      size_t first = 0;
      while (first + 1 < part.size() && (part[first] == '0' || part[first] == ' ')) ++first;
      part.erase(0, first);
    }
    out += part;
  }
  return out;
}

}  // namespace pome::jinja
