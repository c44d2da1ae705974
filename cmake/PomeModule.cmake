# One static library per module of src/, named pome_<module>. Header-only modules become interface libraries.
add_library(pome_flags INTERFACE)
target_compile_features(pome_flags INTERFACE cxx_std_20)
target_include_directories(pome_flags INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_compile_options(pome_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -fno-math-errno
                                            -ffp-contract=off)
# GCC 12 takes the inactive member of a std::variant for an uninitialised value and, at -O3, sums of strings for copies
# that overlap; clang checks the same code in CI.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(pome_flags INTERFACE -Wno-maybe-uninitialized -Wno-restrict)
endif()
if(POME_WERROR)
  target_compile_options(pome_flags INTERFACE -Werror)
endif()
if(POME_SANITIZE)
  target_compile_options(pome_flags INTERFACE -fsanitize=${POME_SANITIZE} -fno-omit-frame-pointer
                                              -fno-sanitize-recover=all)
  target_link_options(pome_flags INTERFACE -fsanitize=${POME_SANITIZE})
endif()
target_link_libraries(pome_flags INTERFACE Threads::Threads nlohmann_json::nlohmann_json)

function(pome_module name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${name}/*.cc")
  list(TRANSFORM ARG_DEPS PREPEND pome_)
  if(sources)
    add_library(pome_${name} STATIC ${sources})
    target_link_libraries(pome_${name} PUBLIC pome_flags ${ARG_DEPS})
    if(PROTOZERO_INCLUDE_DIR)
      target_include_directories(pome_${name} SYSTEM PRIVATE "${PROTOZERO_INCLUDE_DIR}")
    endif()
  else()
    add_library(pome_${name} INTERFACE)
    target_link_libraries(pome_${name} INTERFACE pome_flags ${ARG_DEPS})
  endif()
endfunction()

function(pome_program name dir)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${dir}/*.cc")
  list(TRANSFORM ARG_DEPS PREPEND pome_)
  if(sources)
    add_executable(${name} ${sources})
    target_link_libraries(${name} PRIVATE ${ARG_DEPS})
    if(TARGET CLI11::CLI11)
      target_link_libraries(${name} PRIVATE CLI11::CLI11)
    endif()
    if(POME_SANITIZE)  # as of the tests: reading flags takes no time, compiling their parser does
      target_compile_options(${name} PRIVATE -O0)
    endif()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
    install(TARGETS ${name} RUNTIME)
  endif()
endfunction()

function(pome_tool name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  pome_program(${name} tools/${name} DEPS ${ARG_DEPS})
endfunction()

# tests/<module>/*_test.cc become one program <module>_test. A file *_golden_test.cc or *_oracle_test.cc makes a
# program of its own kind with that ctest label; all others are labelled unit.
function(pome_tests module)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  list(TRANSFORM ARG_DEPS PREPEND pome_)
  foreach(label unit golden oracle)
    file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/${module}/*_test.cc")
    if(label STREQUAL "unit")
      list(FILTER sources EXCLUDE REGEX "_(golden|oracle)_test\\.cc$")
      set(program ${module}_test)
    else()
      list(FILTER sources INCLUDE REGEX "_${label}_test\\.cc$")
      set(program ${module}_${label}_test)
    endif()
    if(sources)
      add_executable(${program} ${sources})
      target_include_directories(${program} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
      if(PROTOZERO_INCLUDE_DIR)
        target_include_directories(${program} SYSTEM PRIVATE "${PROTOZERO_INCLUDE_DIR}")
      endif()
      target_compile_definitions(${program} PRIVATE
        POME_SOURCE_DIR="${CMAKE_SOURCE_DIR}" POME_BINARY_DIR="${CMAKE_BINARY_DIR}")
      target_link_libraries(${program} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gtest_main)
      # What the tests themselves do is little; their libraries are optimised.
      if(POME_SANITIZE)
        target_compile_options(${program} PRIVATE -O0)
      else()
        target_compile_options(${program} PRIVATE -O1)
      endif()
      if(label STREQUAL "unit")
        add_dependencies(unit_tests ${program})
      endif()
      set(results "")
      if(NOT label STREQUAL "unit")  # what scripts/families-table reads
        set(results XML_OUTPUT_DIR "${CMAKE_BINARY_DIR}/test-results")
      endif()
      gtest_discover_tests(${program} ${results} PROPERTIES LABELS ${label} TIMEOUT 600 DISCOVERY_TIMEOUT 60)
    endif()
  endforeach()
endfunction()

# Embeds a file as `std::string_view <function>()` in `namespace pome::cli`.
function(pome_embed_text target file header namespace function)
  set(generated "${CMAKE_BINARY_DIR}/generated/${function}.cc")
  file(READ "${file}" bytes HEX)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(CONFIGURE OUTPUT "${generated}" CONTENT [[
#include "@header@"

namespace @namespace@ {

namespace {
constexpr unsigned char kBytes[] = {
@bytes@
};
}  // namespace

std::string_view @function@() { return {reinterpret_cast<const char*>(kBytes), sizeof kBytes}; }

}  // namespace @namespace@
]] @ONLY)
  target_sources(${target} PRIVATE "${generated}")
endfunction()
