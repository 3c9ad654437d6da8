package org.slmc

import java.io.File

/** Answers every item of a workload with a bundle, one after another, into a result. */
internal suspend fun answerWorkload(
    workload: Workload,
    classifier: Classifier,
    manifest: Manifest,
    device: Device,
    loadMs: Double,
    result: File,
) {
    for ((name, choices) in workload.choices) {
        if (choices.size != classifier.labels.size) {
            throw BadWorkloadException("$name: ${choices.size} choices for ${classifier.labels.size} labels")
        }
    }
    ResultFile(result).use { file ->
        val environment = environment(classifier.engine, manifest, device)
        file.line(mapOf("slmc_result" to 1, "workload" to workload.digest, "environment" to environment))
        for (item in workload.items) {
            val choices = workload.choices.getValue(item.choices)
            file.line(answerLine(item, choices, classifier.answer(item.fields)))
        }
        file.finish(mapOf("finished" to true, "peak_memory_bytes" to peakMemory(), "load_ms" to loadMs))
    }
}

private fun environment(engine: Engine, manifest: Manifest, device: Device): Map<String, Any?> = mapOf(
    "device" to device.name,
    "os" to device.system,
    "runtime" to engine.runtime,
    "version" to engine.version,
    "threads" to engine.threads,
    "thermal" to device.thermal,
    "artifact" to manifest.digest,
    "precision" to manifest.precision,
    "batched" to false,
)

private fun answerLine(item: Item, choices: List<List<Int>>, answer: Answer): Map<String, Any?> = mapOf(
    "mode" to "choose",
    "id" to item.id,
    "choice" to answer.choice,
    "output_ids" to choices[answer.choice],
    "text" to null,
    "choice_logprobs" to answer.logprobs.map { (choice, logprob) -> listOf(choice, logprob) },
    "unexplored" to answer.unexplored,
    "input_ids" to ownIds(item, choices, answer.promptIds.asList()),
    "prefill_ms" to answer.timings.prefillMs,
    "decode_ms" to answer.timings.decodeMs,
    "prefill_tokens" to answer.timings.prefillTokens,
    "decode_tokens" to answer.timings.decodeTokens,
    "decode_steps" to answer.timings.decodeSteps,
)

/** The prompt's ids where they are not the workload's; what all choices begin with may follow them. */
private fun ownIds(item: Item, choices: List<List<Int>>, read: List<Int>): List<Int>? {
    val common = choices.reduce { one, other -> one.zip(other).takeWhile { (a, b) -> a == b }.map { it.first } }
    return read.takeUnless { it == item.inputIds || it == item.inputIds + common }
}

/** The most physical memory that this process has held. */
private fun peakMemory(): Long? =
    File("/proc/self/status").readLines().firstOrNull { it.startsWith("VmHWM:") }
        ?.filter { it.isDigit() }?.toLong()?.times(1024)
