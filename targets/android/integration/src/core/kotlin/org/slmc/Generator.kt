package org.slmc

import java.io.Closeable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow

/**
 * Answers in text, with the model that the app carries. Where the bundle's task is to extract, the text is JSON that
 * fits its schema, whole where it [ended][Done.ENDED].
 *
 *     val booking = Generator.open(context)
 *     val answer = booking.generate("a table for two at noon")
 *     if (answer.done == Done.ENDED) JSONObject(answer.text) else ...
 *     booking.stream("a table for two at noon").collect { view.append(it) }
 *
 * May be shared by coroutines on any threads: they are answered one after another, on a thread of its own. Cancelling
 * a coroutine stops the model, with ExecuTorch as soon as it has read the prompt, or the next token. Opening reads
 * files, so keep it while it is in use, and [close] it after.
 */
class Generator internal constructor(internal val worker: Worker) : Closeable {
    init {
        require(worker.engine.labels.isEmpty()) { "the bundle's task chooses among labels: open it with Classifier" }
    }

    /** What [generate] and [stream] are to be given. */
    val fields: List<String> get() = worker.engine.fields

    /** How this phone reads prompts otherwise than where the bundle was built; null where it doesn't. */
    val failedCheck: String? get() = worker.failedCheck

    /** Why the first answer takes longer than it could: the bundle's `prefix.slm` is not for this phone. */
    val refusedPrefix: String? get() = worker.engine.refusedPrefix

    /** For a task of one field. */
    suspend fun generate(text: String, sampling: Sampling = Sampling()): Generation =
        generate(worker.only(text), sampling)

    /**
     * Throws [IllegalArgumentException] where the fields are not those that [fields] names, or they or a stop string
     * hold half a surrogate pair, [SlmException] where the model can't answer, such as a text that is longer than its
     * context (status 6) or a temperature below 0 (status 1), and [IllegalStateException] when closed.
     */
    suspend fun generate(fields: Map<String, String>, sampling: Sampling = Sampling()): Generation {
        val texts = worker.texts(fields)
        val how = sampling.native()
        if (failedCheck != null) return Generation(null, null, emptyList(), emptyList(), Timings())
        return worker.ask {
            val text = StringBuilder()
            val written = write(texts, how) { text.append(it) }
            Generation(text.toString(), written.done, written.ids.asList(), written.logprobs.asList(), written.timings)
        }
    }

    /** For a task of one field; others throw [IllegalArgumentException] at once. */
    fun stream(text: String, sampling: Sampling = Sampling()): Flow<String> = stream(worker.only(text), sampling)

    /**
     * The text of [generate] in pieces, whole characters as soon as they are certain. Each collector gets an answer of
     * its own, and stops the model where it is cancelled or has enough; until then, others wait. Throws where it is
     * collected: what [generate] throws, and [FailedCheckException] where that abstains.
     */
    fun stream(fields: Map<String, String>, sampling: Sampling = Sampling()): Flow<String> = channelFlow {
        val texts = worker.texts(fields)
        val how = sampling.native()
        failedCheck?.let { throw FailedCheckException(it) }
        worker.ask { write(texts, how) { if (it.isNotEmpty()) trySend(it) } }
    }.buffer(Channel.UNLIMITED) // the model waits for nobody

    /** Returns at once; the memory is freed after the answer that is being made. */
    override fun close() = worker.close()

    companion object
}
