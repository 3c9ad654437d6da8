package org.slmc

import java.io.Closeable
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock

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
    internal val engine: Engine,
    private val abstainBelow: Float,
    /** How this phone's answers differ from those of where the bundle was built; null where they don't. */
    val failedCheck: String?,
) : Closeable {
    val labels: List<String> get() = engine.labels

    /** What [classify] is to be given. */
    val fields: List<String> get() = engine.fields

    /** Why the first answer takes longer than it could: the bundle's `prefix.slm` is not for this phone. */
    val refusedPrefix: String? get() = engine.refusedPrefix

    // Ends when idle, so that it needs no shutting down, after which tasks would be refused.
    private val worker = ThreadPoolExecutor(1, 1, 5, TimeUnit.SECONDS, LinkedBlockingQueue()) { work ->
        Thread(work, "slm").apply { isDaemon = true }
    }.apply { allowCoreThreadTimeOut(true) }
    private val dispatcher = worker.asCoroutineDispatcher()
    private val turn = Mutex()
    private var closed = false // changed by the worker alone

    /** For a task of one field. */
    suspend fun classify(text: String): Decision = classify(mapOf(onlyField() to text))

    /**
     * Throws [IllegalArgumentException] where the fields are not those that [fields] names or hold half a surrogate
     * pair, [SlmException] where the model can't answer, such as a text that is longer than its context (status 6), and
     * [IllegalStateException] when closed.
     */
    suspend fun classify(fields: Map<String, String>): Decision {
        val texts = texts(fields)
        if (failedCheck != null) return Decision(null, 0f, -1, Timings())
        return decision(ask(texts))
    }

    /** The same with all that the model told, whatever the check said. */
    internal suspend fun answer(fields: Map<String, String>): Answer = ask(texts(fields))

    /** Returns at once; the memory is freed after the answer that is being made. */
    override fun close() = worker.execute {
        synchronized(worker) {
            if (!closed) engine.close()
            closed = true
        }
    }

    private fun cancel() = synchronized(worker) { if (!closed) engine.cancel() }

    private fun decision(answer: Answer): Decision {
        val label = if (answer.probability < abstainBelow) null else labels[answer.choice]
        return Decision(label, answer.probability, answer.choice, answer.timings)
    }

    // Whoever is cancelled stays until the model has stopped: the next one's answer is not theirs to cancel.
    private suspend fun ask(texts: Array<ByteArray>): Answer = turn.withLock {
        coroutineScope {
            val answer = async(dispatcher) { runCatching { answerNow(texts) } }
            try {
                answer.await().getOrThrow()
            } catch (cancelled: CancellationException) {
                cancel()
                throw cancelled
            }
        }
    }

    private fun CoroutineScope.answerNow(texts: Array<ByteArray>): Answer {
        while (true) {
            ensureActive()
            check(!closed) { "the classifier is closed" }
            try {
                return engine.answer(texts)
            } catch (failure: SlmException) {
                // Who was cancelled may have ended by itself: then it was the next answer, this one, that was stopped.
                if (failure.status != CANCELLED) throw failure
            }
        }
    }

    private fun onlyField(): String =
        requireNotNull(fields.singleOrNull()) { "the task has the fields $fields: give each of them" }

    private fun texts(given: Map<String, String>): Array<ByteArray> {
        require(given.keys == fields.toSet()) { "the fields are ${given.keys}, not $fields" }
        return Array(fields.size) { utf8(fields[it], given.getValue(fields[it])) }
    }

    private fun utf8(field: String, text: String): ByteArray =
        try {
            text.encodeToByteArray(throwOnInvalidSequence = true)
        } catch (invalid: CharacterCodingException) {
            throw IllegalArgumentException("field $field holds half a surrogate pair", invalid)
        }

    companion object
}
