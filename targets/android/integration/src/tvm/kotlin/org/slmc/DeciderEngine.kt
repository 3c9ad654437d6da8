package org.slmc

import java.io.File

internal val REQUIRED_FILES = listOf("task.slm", "model/model.slm")
internal val OPTIONAL_FILES = listOf("prefix.slm")

internal fun openEngine(folder: File, threads: Int): Engine = DeciderEngine(folder, threads)

/** A model that slmc compiled: the native library does all of it. */
internal class DeciderEngine(folder: File, override val threads: Int) : Engine {
    override val runtime = "slm"
    override val version: String
    override val fields: List<String>
    override val labels: List<String>
    override var refusedPrefix: String? = null
        private set

    private var task = 0L
    private var model = 0L
    private var decider = 0L

    init {
        orClose {
            task = SlmText.openTask(File(folder, "task.slm").path)
            model = Slm.open(File(folder, "model/model.slm").path, null)
            decider = open(File(folder, "prefix.slm"))
        }
        version = "${Slm.version() shr 16}.${Slm.version() and 0xffff}, ${Slm.kernels(model)}"
        fields = SlmText.fields(task).asList()
        labels = SlmText.labels(task).asList()
    }

    override fun answer(texts: Array<ByteArray>): Answer {
        val found = SlmDecider.classify(decider, texts)
        val logprobs = labels.indices.associateWith { SlmDecider.logprob(decider, it) }.filterValues { !it.isNaN() }
        val timings = Timings(
            encodeMs = found.encodeNanoseconds / 1e6,
            prefillMs = found.prefillNanoseconds / 1e6,
            decodeMs = found.decodeNanoseconds / 1e6,
            prefillTokens = found.prefillTokens,
            decodeTokens = found.decodeTokens,
            decodeSteps = found.decodeSteps,
        )
        val ids = SlmDecider.promptIds(decider)
        return Answer(found.choice, found.probability, found.unexplored, timings, ids, logprobs)
    }

    override fun write(texts: Array<ByteArray>, sampling: SlmSampling, each: (String) -> Unit): Written {
        val begun = System.nanoTime()
        SlmDecider.beginAnswer(decider, texts, sampling)
        val prefilled = System.nanoTime()
        var piece: SlmPiece
        do {
            piece = SlmDecider.nextPiece(decider)
            each(piece.text.decodeToString())
        } while (piece.done == SlmPiece.MORE)
        val logprobs = SlmDecider.answerLogprobs(decider)
        val promptIds = SlmDecider.promptIds(decider)
        val timings = Timings(
            prefillMs = (prefilled - begun) / 1e6,
            decodeMs = (System.nanoTime() - prefilled) / 1e6,
            prefillTokens = promptIds.size,
            decodeTokens = logprobs.size - 1, // each was taken after one more was read, the first after the prompt
            decodeSteps = logprobs.size - 1,
        )
        return Written(done(piece), SlmDecider.answerIds(decider), logprobs, promptIds, timings)
    }

    override fun selfCheck(): SlmCheck = SlmDecider.selfTest(decider)

    override fun cancel() = SlmDecider.cancel(decider)

    override fun close() {
        SlmDecider.close(decider)
        Slm.close(model)
        SlmText.closeTask(task)
    }

    /** The keys and values in a prefix are those of some kernels; others read the prompt's beginning themselves. */
    private fun open(prefix: File): Long {
        if (prefix.isFile) {
            try {
                return SlmDecider.open(model, task, 0, threads, prefix.path, 0f)
            } catch (refused: SlmException) {
                if (refused.status != BAD_FILE) throw refused
                refusedPrefix = refused.message
            }
        }
        return SlmDecider.open(model, task, 0, threads, null, 0f)
    }
}

/** `SLM_BAD_FILE` of slm_text.h. */
private const val BAD_FILE = 3
