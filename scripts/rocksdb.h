// The headers that most of RocksDB's files read; scripts/c++ reads them once.
#include "db/db_impl/db_impl.h"
#include "logging/logging.h"
#include "rocksdb/utilities/options_type.h"
#include "table/block_based/block_based_table_reader.h"
#include "test_util/sync_point.h"
#include "util/coding.h"
#include "util/string_util.h"
