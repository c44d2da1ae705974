// coremltools reads what we write: its packages, parsed and serialised again, and a package of
// ours.
#include <cstdlib>

#include "formats/mil.h"
#include "formats/mil_samples.h"

namespace pome::mil {
namespace {

namespace fs = std::filesystem;

const std::string kShared = std::string(POME_SOURCE_DIR) + "/../shared";

std::string run(const std::string& command, int* status) {
  std::string out;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, got);
  *status = pclose(pipe);
  return out;
}

// Empty where coremltools is not installed.
std::string coremltools_folder() {
  int status = 0;
  std::string out =
      run("python3 -c 'import coremltools, os; print(\"at \" + "
          "os.path.dirname(os.path.dirname(coremltools.__file__)))'",
          &status);
  const size_t at = out.rfind("at ");
  if (status != 0 || at == std::string::npos) return "";
  out = out.substr(at + 3);
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

TEST(MlPackageOracle, CoremltoolsReadsGoldenPackagesWrittenAgain) {
  const std::string check = kShared + "/oracles/coreml_check.py";
  if (!fs::exists(check)) GTEST_SKIP() << check << " is not there";
  const std::string tools = coremltools_folder();
  if (tools.empty()) GTEST_SKIP() << "python3 has no coremltools";
  for (const char* name : {"llm_multi", "compress_ios18", "compress_ios16", "ops_ios18"}) {
    const std::string golden = kShared + "/golden/coreml/" + name + ".mlpackage";
    const std::string copy = temp_folder(std::string("oracle_") + name) + "/x.mlpackage";
    fs::copy(golden, copy, fs::copy_options::recursive);
    for (const auto& entry : fs::recursive_directory_iterator(copy)) {
      fs::permissions(entry.path(), fs::perms::owner_all, fs::perm_options::add);
    }
    fs::permissions(copy, fs::perms::owner_all, fs::perm_options::add);
    const auto package = read_package(golden);
    ASSERT_TRUE(package.ok()) << package.status().to_string();
    const auto bytes = serialize(package->model);
    ASSERT_TRUE(bytes.ok());
    write_raw(copy + "/Data/com.apple.CoreML/model.mlmodel", *bytes);
    write_raw(copy + "/Manifest.json", package_manifest(name));
    int status = 0;
    const std::string out = run("python3 " + check + " " + copy + " " + tools, &status);
    EXPECT_EQ(status, 0) << name << "\n" << out;
  }
}

}  // namespace
}  // namespace pome::mil
