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

/** An engine that is asked by coroutines on any threads, and answers one after another, on a thread of its own. */
internal class Worker(
    val engine: Engine,
    /** What the check on this phone found to be otherwise, or null. */
    val failedCheck: String?,
) : Closeable {
    // Ends when idle, so that it needs no shutting down, after which tasks would be refused.
    private val worker = ThreadPoolExecutor(1, 1, 5, TimeUnit.SECONDS, LinkedBlockingQueue()) { work ->
        Thread(work, "slm").apply { isDaemon = true }
    }.apply { allowCoreThreadTimeOut(true) }
    private val dispatcher = worker.asCoroutineDispatcher()
    private val turn = Mutex()
    private var closed = false // changed by the worker alone

    /**
     * What the engine answers; [work] begins anew where it was stopped in place of another's. Throws
     * [IllegalStateException] when closed. Whoever is cancelled stays until the model has stopped: the next one's
     * answer is not theirs to cancel.
     */
    suspend fun <T> ask(work: Engine.() -> T): T = turn.withLock {
        coroutineScope {
            val answer = async(dispatcher) { runCatching { workNow(work) } }
            try {
                answer.await().getOrThrow()
            } catch (cancelled: CancellationException) {
                cancel()
                throw cancelled
            }
        }
    }

    /** Returns at once; the memory is freed after the answer that is being made. */
    override fun close() = worker.execute {
        synchronized(worker) {
            if (!closed) engine.close()
            closed = true
        }
    }

    private fun cancel() = synchronized(worker) { if (!closed) engine.cancel() }

    private fun <T> CoroutineScope.workNow(work: Engine.() -> T): T {
        while (true) {
            ensureActive()
            check(!closed) { "it is closed" }
            try {
                return engine.work()
            } catch (failure: SlmException) {
                // Who was cancelled may have ended by itself: then it was the next answer, this one, that was stopped
                // where it began.
                if (failure.status != CANCELLED) throw failure
            }
        }
    }

    /** For a task of one field. */
    fun only(text: String): Map<String, String> {
        val fields = engine.fields
        val field = requireNotNull(fields.singleOrNull()) { "the task has the fields $fields: give each of them" }
        return mapOf(field to text)
    }

    /** In UTF-8, in the engine's order. Throws [IllegalArgumentException] where they are not the task's. */
    fun texts(given: Map<String, String>): Array<ByteArray> {
        val fields = engine.fields
        require(given.keys == fields.toSet()) { "the fields are ${given.keys}, not $fields" }
        return Array(fields.size) { utf8("field ${fields[it]}", given.getValue(fields[it])) }
    }
}

internal fun utf8(what: String, text: String): ByteArray =
    try {
        text.encodeToByteArray(throwOnInvalidSequence = true)
    } catch (invalid: CharacterCodingException) {
        throw IllegalArgumentException("$what holds half a surrogate pair", invalid)
    }
