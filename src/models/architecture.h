#pragma once

#include "models/config_reader.h"
#include "models/decoder_builder.h"
#include "models/network.h"

// What files in architectures/ need: each defines one function `Architecture NAME_architecture()`, listed in
// architectures.cpp.
