/* Runs a program of the executorch backend by ExecuTorch's libraries alone, for tests on another CPU:
 *
 *     executorch_runner PROGRAM OUT CALL...
 *
 * A call is METHOD:POSITION:TOKEN,TOKEN..., such as "forward:0:5,17"; all have one cache. Writes the logits of each,
 * one call after another, as float32.
 *
 * ExecuTorch's libraries for other CPUs have the operators of attention only where torch is. So here are plain ones. */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::extension::make_tensor_ptr;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Program;

/* ---- Operators ------------------------------------------------------------------------------------------------ */

static bool holds(const Tensor &cache, int64_t start, int64_t count) {
  return start >= 0 && count <= cache.size(1) - start;
}

/* value is [1, n, kv_heads, head_dim], cache [1, context, kv_heads, head_dim]. */
static Tensor &update_cache(KernelRuntimeContext &context, const Tensor &value, Tensor &cache, int64_t start,
                            Tensor &out) {
  ET_KERNEL_CHECK(context, holds(cache, start, value.size(1)), InvalidArgument, out);
  float *to = cache.mutable_data_ptr<float>() + start * cache.size(2) * cache.size(3);
  memcpy(to, value.const_data_ptr<float>(), value.nbytes());
  return out;
}

static float product(const float *left, const float *right, int64_t size) {
  float sum = 0;
  for (int64_t i = 0; i < size; i++)
    sum += left[i] * right[i];
  return sum;
}

/* Scores into weights that add up to 1. */
static void softmax(std::vector<float> &scores) {
  const float largest = *std::max_element(scores.begin(), scores.end());
  float sum = 0;
  for (float &score : scores)
    sum += score = std::exp(score - largest);
  for (float &score : scores)
    score /= sum;
}

/* q and out are [1, n, heads, head_dim], the caches as above, of which a key-value head serves heads / kv_heads;
 * the mask, [n, context], is added to scores. */
static Tensor &custom_sdpa(KernelRuntimeContext &context, const Tensor &q, const Tensor &keys, const Tensor &values,
                           int64_t start, const std::optional<Tensor> &mask, double dropout, bool causal,
                           std::optional<double> scale, Tensor &out) {
  const int64_t count = q.size(1), heads = q.size(2), head_dim = q.size(3);
  const int64_t positions = keys.size(1), kv_heads = keys.size(2), row = kv_heads * head_dim;
  ET_KERNEL_CHECK(context, holds(keys, start, count) && dropout == 0, InvalidArgument, out);
  ET_KERNEL_CHECK(context, !mask || (mask->size(0) == count && mask->size(1) == positions), InvalidArgument, out);
  ET_KERNEL_CHECK(context, resize_tensor(out, q.sizes()) == Error::Ok, InvalidArgument, out);
  const float factor = static_cast<float>(scale.value_or(1 / std::sqrt(static_cast<double>(head_dim))));
  for (int64_t token = 0; token < count; token++) {
    std::vector<float> weights(causal ? start + token + 1 : positions);
    for (int64_t head = 0; head < heads; head++) {
      const int64_t place = (token * heads + head) * head_dim, shared = head / (heads / kv_heads) * head_dim;
      const float *query = q.const_data_ptr<float>() + place;
      for (size_t i = 0; i < weights.size(); i++) {
        weights[i] = factor * product(query, keys.const_data_ptr<float>() + i * row + shared, head_dim);
        if (mask)
          weights[i] += mask->const_data_ptr<float>()[token * positions + i];
      }
      softmax(weights);
      float *attended = out.mutable_data_ptr<float>() + place;
      std::fill_n(attended, head_dim, 0.0f);
      for (size_t i = 0; i < weights.size(); i++)
        for (int64_t j = 0; j < head_dim; j++)
          attended[j] += weights[i] * values.const_data_ptr<float>()[i * row + shared + j];
    }
  }
  return out;
}

EXECUTORCH_LIBRARY(llama, "update_cache.out", update_cache);
EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", custom_sdpa);

/* ---- Calls ---------------------------------------------------------------------------------------------------- */

[[noreturn]] static void stop(const std::string &text) {
  fprintf(stderr, "%s\n", text.c_str());
  exit(1);
}

static void check(Error error, const std::string &what) {
  if (error != Error::Ok)
    stop(what + ": " + executorch::runtime::to_string(error));
}

static void call(Module &module, const std::string &text, FILE *out) {
  std::istringstream words(text);
  std::string method;
  std::vector<int64_t> position(1), tokens;
  std::getline(words, method, ':');
  words >> position[0];
  char wanted = ':', mark;
  for (int64_t token; words >> mark && mark == wanted && words >> token; wanted = ',')
    tokens.push_back(token);
  if (tokens.empty() || !words.eof())
    stop("not a call: " + text);
  const auto ids = make_tensor_ptr({1, static_cast<SizesType>(tokens.size())}, tokens);
  const auto start = make_tensor_ptr({1}, position);
  const auto answer = module.execute(method, {EValue(*ids), EValue(*start)});
  check(answer.error(), text);
  const Tensor &logits = answer->at(0).toTensor();
  if (logits.scalar_type() != ScalarType::Float)
    stop(text + ": the logits are not float32");
  if (fwrite(logits.const_data_ptr<float>(), 1, logits.nbytes(), out) != logits.nbytes())
    stop("can't write logits");
}

int main(int count, char **arguments) {
  if (count < 4)
    stop("executorch_runner PROGRAM OUT CALL...");
  /* The methods have one cache if they share memory. */
  Module module(arguments[1], Module::LoadMode::Mmap, nullptr, nullptr, nullptr, true);
  check(module.load(Program::Verification::InternalConsistency), arguments[1]);
  FILE *out = fopen(arguments[2], "wb");
  if (!out)
    stop(std::string("can't write ") + arguments[2]);
  for (char **one = arguments + 3; *one; one++)
    call(module, *one, out);
  if (fclose(out))
    stop("can't write logits");
  return 0;
}
