package org.slmc

import java.io.Closeable
import java.io.File
import org.json.JSONObject
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * An exported decoder: `forward(tokens [1, n], position of the first [1])` gives the logits after the last. The cache
 * is inside, and is written over from that position on.
 */
internal class Program(file: File, threads: Int, facts: JSONObject) : Closeable {
    val context = facts.getInt("context")
    private val vocabulary = facts.getInt("vocab_size")
    private val most = if (facts.getBoolean("one_token")) 1 else context
    private val module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)

    /** The tokens that were read. */
    var held = IntArray(0)
        private set

    fun rewind(position: Int) {
        held = held.copyOf(position)
    }

    /** Logits after the last of more tokens, at least one; [between] runs before each call of the program. */
    fun read(ids: IntArray, between: () -> Unit): FloatArray {
        // The program checks neither.
        if (held.size + ids.size > context) {
            throw SlmException("$CONTEXT_FULL: ${held.size + ids.size} tokens in a context of $context")
        }
        require(ids.all { it in 0 until vocabulary }) { "a token outside the vocabulary of $vocabulary" }
        var logits = FloatArray(0)
        for (first in ids.indices step most) {
            between()
            logits = forward(ids.copyOfRange(first, minOf(first + most, ids.size)))
        }
        return logits
    }

    override fun close() = module.destroy()

    private fun forward(ids: IntArray): FloatArray {
        val tokens = Tensor.fromBlob(LongArray(ids.size) { ids[it].toLong() }, longArrayOf(1, ids.size.toLong()))
        val position = Tensor.fromBlob(longArrayOf(held.size.toLong()), longArrayOf(1))
        val logits = module.forward(EValue.from(tokens), EValue.from(position))[0].toTensor().dataAsFloatArray
        held += ids
        return logits
    }
}

/** `SLM_CONTEXT_FULL` of slm_text.h. */
private const val CONTEXT_FULL = 6
