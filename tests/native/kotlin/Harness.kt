package org.slmc

import android.content.Context
import java.io.File
import java.net.URLDecoder
import java.net.URLEncoder
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.json.JSONObject

/**
 * Runs the Android module on this machine: APP WHAT, the folder that stands for the app's data, with its assets, and
 * what to do.
 */
fun main(arguments: Array<String>) = runBlocking {
    val context = Context(File(arguments[0]))
    when (arguments[1]) {
        "answers" -> answers(context, arguments.drop(2))
        "texts" -> texts(context, arguments.drop(2))
        "workload" -> WorkloadTest().answers()
        "hostile" -> for ((name, status) in hostile(File(arguments[0], "assets/slm"))) println("$name: $status")
        "behaviour" -> behave(behaviour, arguments)
        "text-behaviour" -> behave(textBehaviour, arguments)
    }
}

private suspend fun behave(tests: Map<String, suspend (App) -> Unit>, arguments: Array<String>) {
    for ((name, test) in tests) {
        if (name in arguments || arguments.size == 2) println("$name: ${outcome { test(App(File(arguments[0]))) }}")
    }
}

/** What is told of each text, written as in a URL; floats in hexadecimal. */
private suspend fun answers(context: Context, texts: List<String>) {
    Classifier.open(context, threads = 1).use { classifier ->
        println("${classifier.fields} ${classifier.labels.size} ${classifier.failedCheck} ${classifier.refusedPrefix}")
        for (text in texts.map { URLDecoder.decode(it, "UTF-8") }) {
            val decision = classifier.classify(text)
            val answer = classifier.worker.run { texts(only(text)).let { ask { answer(it) } } }
            val probability = java.lang.Float.toHexString(decision.probability)
            val ids = answer.promptIds.joinToString(",")
            val logprobs = answer.logprobs.map { (choice, value) -> "$choice:${java.lang.Double.toHexString(value)}" }
            println("${decision.label} $probability $ids ${logprobs.joinToString(",")}")
        }
    }
}

/** What is told of each answer in text, and its pieces; asked and told in JSON, written as in a URL. */
private suspend fun texts(context: Context, asked: List<String>) {
    Generator.open(context, threads = 1).use { generator ->
        println("${generator.fields} ${generator.failedCheck} ${generator.refusedPrefix}")
        for (json in asked.map { JSONObject(URLDecoder.decode(it, "UTF-8")) }) {
            val text = json.getString("text")
            val stops = json.getJSONArray("stops")
            val sampling = Sampling(
                json.getDouble("temperature").toFloat(),
                json.getDouble("top_p").toFloat(),
                json.getInt("top_k"),
                json.getInt("max_tokens"),
                json.getLong("seed"),
                List(stops.length()) { stops.getString(it) },
            )
            val found = generator.generate(text, sampling)
            val told = mapOf(
                "text" to found.text,
                "done" to found.done?.name,
                "ids" to found.tokens,
                "logprobs" to found.logprobs,
                "pieces" to generator.stream(text, sampling).toList(),
                "tokens" to found.timings.run { listOf(prefillTokens, decodeTokens, decodeSteps) },
            )
            println(URLEncoder.encode(json(told), "UTF-8"))
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
