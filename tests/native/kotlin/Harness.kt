package org.slmc

import android.content.Context
import java.io.File
import java.net.URLDecoder
import kotlinx.coroutines.runBlocking

/**
 * Runs the Android module on this machine: APP WHAT, the folder that stands for the app's data, with its assets, and
 * what to do.
 */
fun main(arguments: Array<String>) = runBlocking {
    val context = Context(File(arguments[0]))
    when (arguments[1]) {
        "answers" -> answers(context, arguments.drop(2))
        "workload" -> WorkloadTest().answers()
        "hostile" -> for ((name, status) in hostile(File(arguments[0], "assets/slm"))) println("$name: $status")
        "behaviour" -> for ((name, test) in behaviour) {
            if (name in arguments || arguments.size == 2) println("$name: ${outcome { test(App(File(arguments[0]))) }}")
        }
    }
}

/** What is told of each text, written as in a URL; floats in hexadecimal. */
private suspend fun answers(context: Context, texts: List<String>) {
    Classifier.open(context, threads = 1).use { classifier ->
        println("${classifier.fields} ${classifier.labels.size} ${classifier.failedCheck} ${classifier.refusedPrefix}")
        for (text in texts.map { URLDecoder.decode(it, "UTF-8") }) {
            val decision = classifier.classify(text)
            val answer = classifier.answer(mapOf(classifier.fields.single() to text))
            val probability = java.lang.Float.toHexString(decision.probability)
            val ids = answer.promptIds.joinToString(",")
            val logprobs = answer.logprobs.map { (choice, value) -> "$choice:${java.lang.Double.toHexString(value)}" }
            println("${decision.label} $probability $ids ${logprobs.joinToString(",")}")
        }
    }
}

private suspend fun outcome(test: suspend () -> Unit): String =
    try {
        test()
        "as it should"
    } catch (failure: Throwable) {
        failure.stackTraceToString().replace("\n", " ")
    }
