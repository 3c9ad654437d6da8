package org.slmc

import java.io.Closeable

/**
 * Tells which label fits a text, with the model that the app carries.
 *
 *     val router = Classifier.open(context)
 *     val decision = router.classify("wire 200 to my sister")
 *     when (decision.label) { "transfer" -> ...; null -> ... }
 *
 * May be shared by coroutines on any threads: they are answered one after another, on a thread of its own. Cancelling a
 * coroutine stops the model, with ExecuTorch as soon as it has read the prompt. Opening reads files, so keep it while it
 * is in use, and [close] it after.
 */
class Classifier internal constructor(
    internal val worker: Worker,
    private val abstainBelow: Float,
) : Closeable {
    init {
        require(labels.isNotEmpty()) { "the bundle's task has no labels, its answers are text: open it with Generator" }
    }

    val labels: List<String> get() = worker.engine.labels

    /** What [classify] is to be given. */
    val fields: List<String> get() = worker.engine.fields

    /** How this phone's answers differ from those of where the bundle was built; null where they don't. */
    val failedCheck: String? get() = worker.failedCheck

    /** Why the first answer takes longer than it could: the bundle's `prefix.slm` is not for this phone. */
    val refusedPrefix: String? get() = worker.engine.refusedPrefix

    /** For a task of one field. */
    suspend fun classify(text: String): Decision = classify(worker.only(text))

    /**
     * Throws [IllegalArgumentException] where the fields are not those that [fields] names or hold half a surrogate
     * pair, [SlmException] where the model can't answer, such as a text that is longer than its context (status 6), and
     * [IllegalStateException] when closed.
     */
    suspend fun classify(fields: Map<String, String>): Decision {
        val texts = worker.texts(fields)
        if (failedCheck != null) return Decision(null, 0f, -1, Timings())
        return decision(worker.ask { answer(texts) })
    }

    /** Returns at once; the memory is freed after the answer that is being made. */
    override fun close() = worker.close()

    private fun decision(answer: Answer): Decision {
        val label = if (answer.probability < abstainBelow) null else labels[answer.choice]
        return Decision(label, answer.probability, answer.choice, answer.timings)
    }

    companion object
}
