package org.slmc

/** What is asked, by slmc's runner contract: of its modes, `choose` or `generate`. */
internal class Workload(val digest: String, val choices: Map<String, List<List<Int>>>, val items: List<Item>)

internal sealed class Item(val id: String, val fields: Map<String, String>, val inputIds: List<Int>)

internal class ChooseItem(id: String, fields: Map<String, String>, inputIds: List<Int>, val choices: String) :
    Item(id, fields, inputIds)

internal class GenerateItem(id: String, fields: Map<String, String>, inputIds: List<Int>, val maxTokens: Int) :
    Item(id, fields, inputIds)

/** A workload that can't be answered here. */
internal class BadWorkloadException(message: String) : Exception(message)

/** Where the answers are made. */
internal class Device(val name: String, val system: String, val thermal: String?)
