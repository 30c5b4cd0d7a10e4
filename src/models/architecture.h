#pragma once

#include "models/config_reader.h"
#include "models/decoder_builder.h"
#include "models/network.h"

// The includes of the files in architectures/. Each file defines one function `Architecture NAME_architecture()`,
// listed in architectures.cpp.
