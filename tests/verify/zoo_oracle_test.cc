// coremltools' own rules about the package of every model of the collection. POME_ALL_SCHEMES=1
// judges the packages in 4 bits too (half a minute of processor time).
#include <cstdlib>

#include "base/temp_folder.h"
#include "support/zoo.h"
#include "tokenizer/python_oracle.h"
#include "verify/tampered.h"

namespace pome {
namespace {

using namespace test;

const std::string kCheck = POME_SOURCE_DIR "/../shared/oracles/coreml_check.py";

// One process for all packages: importing coremltools takes longer than judging one.
constexpr const char* kJudgeAll = R"(
import contextlib, importlib.util, io, json, os, sys
import coremltools
with open(sys.argv[1]) as file: job = json.load(file)
out = sys.argv[2]
spec = importlib.util.spec_from_file_location('coreml_check', job['check'])
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)
tools = os.path.dirname(os.path.dirname(coremltools.__file__))
verdicts = {}
for name, package in job['packages'].items():
    sys.argv = ['coreml_check.py', package, tools, '--strict', '--decompress']
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = check.main()
    verdicts[name] = [code, said.getvalue()[-2000:]]
with open(out, 'w') as file: json.dump(verdicts, file)
)";

TEST(ZooOracle, CoremltoolsAcceptsThePackages) {
  if (!std::filesystem::exists(kCheck)) GTEST_SKIP() << kCheck << " is not there";
  POME_NEED_PYTHON("coremltools");
  const TempFolder folder(true);
  std::vector<std::string> schemes = {"f16"};
  if (std::getenv("POME_ALL_SCHEMES")) schemes.insert(schemes.end(), {"int4", "lut4"});
  Json job = {{"check", kCheck}, {"packages", Json::object()}};
  for (const std::string& model : zoo_names())
    for (const std::string& scheme : schemes) {
      const std::string path = folder / (model + " " + scheme);
      const Status status = make_artefact(path, scheme, 128, 2, kZoo + model);
      ASSERT_TRUE(status.ok()) << status.to_string();
      job["packages"][model + " " + scheme] = path + "/model.mlpackage";
    }
  const Json verdicts = run_python(kJudgeAll, job);
  ASSERT_TRUE(verdicts.is_object());
  for (const std::string& model : zoo_names()) {
    bool valid = true;
    for (const std::string& scheme : schemes) {
      const Json& verdict = verdicts[model + " " + scheme];
      EXPECT_EQ(verdict[0], 0) << model << " " << scheme << "\n" << verdict[1];
      valid = valid && verdict[0] == 0;
    }
    if (valid) record(model, "coremltools", "valid");
  }
}

}  // namespace
}  // namespace pome
