package org.slmc

import java.io.File

/** Answers every item of a workload with a bundle, one after another, into a result. */
internal suspend fun answerWorkload(
    workload: Workload,
    worker: Worker,
    manifest: Manifest,
    device: Device,
    loadMs: Double,
    result: File,
) {
    for ((name, choices) in workload.choices) {
        if (choices.size != worker.engine.labels.size) {
            throw BadWorkloadException("$name: ${choices.size} choices for ${worker.engine.labels.size} labels")
        }
    }
    ResultFile(result).use { file ->
        val environment = environment(worker.engine, manifest, device)
        file.line(mapOf("slmc_result" to 1, "workload" to workload.digest, "environment" to environment))
        for (item in workload.items) {
            val texts = worker.texts(item.fields)
            val line = when (item) {
                is ChooseItem -> {
                    val choices = workload.choices.getValue(item.choices)
                    chosen(item, choices, worker.ask { answer(texts) })
                }
                is GenerateItem -> generated(item, texts, worker)
            }
            file.line(line)
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

private fun chosen(item: ChooseItem, choices: List<List<Int>>, answer: Answer): Map<String, Any?> = mapOf(
    "mode" to "choose",
    "id" to item.id,
    "choice" to answer.choice,
    "output_ids" to choices[answer.choice],
    "text" to null,
    "choice_logprobs" to answer.logprobs.map { (choice, logprob) -> listOf(choice, logprob) },
    "unexplored" to answer.unexplored,
    "input_ids" to ownIds(item, choices, answer.promptIds.asList()),
) + times(answer.timings)

private suspend fun generated(item: GenerateItem, texts: Array<ByteArray>, worker: Worker): Map<String, Any?> {
    val sampling = Sampling(maxTokens = item.maxTokens).native()
    val text = StringBuilder()
    val written = worker.ask { write(texts, sampling) { text.append(it) } }
    val promptIds = written.promptIds.asList()
    if (written.done == Done.LENGTH && written.ids.size < item.maxTokens) {
        val room = "${promptIds.size} of the prompt and ${written.ids.size} of the answer"
        throw BadWorkloadException("item ${item.id} asks for ${item.maxTokens} tokens; there is room for $room")
    }
    return mapOf(
        "mode" to "generate",
        "id" to item.id,
        "output_ids" to written.ids.asList(),
        "ended" to (written.done == Done.ENDED),
        "text" to text.toString(),
        "logprobs" to written.logprobs.asList(),
        "input_ids" to promptIds.takeUnless { it == item.inputIds },
    ) + times(written.timings)
}

private fun times(timings: Timings): Map<String, Any?> = mapOf(
    "prefill_ms" to timings.prefillMs,
    "decode_ms" to timings.decodeMs,
    "prefill_tokens" to timings.prefillTokens,
    "decode_tokens" to timings.decodeTokens,
    "decode_steps" to timings.decodeSteps,
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
