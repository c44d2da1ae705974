#include "cli/app.h"

int main(int argc, char** argv) { return pome::cli::App().run(argc, argv); }
