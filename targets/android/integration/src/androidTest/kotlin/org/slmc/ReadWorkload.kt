package org.slmc

import java.io.File
import org.json.JSONArray
import org.json.JSONObject

internal fun readWorkload(file: File): Workload {
    val lines = file.readText().split("\n").filter { it.isNotBlank() }.map { JSONObject(it) }
    val header = lines.first()
    if (header.optInt("slmc_workload") != 1) throw BadWorkloadException("$file is no workload of version 1")
    val choices = header.getJSONObject("choices")
    return Workload(
        digest = header.getString("digest"),
        choices = choices.keys().asSequence().associateWith { name ->
            choices.getJSONArray(name).let { sets -> List(sets.length()) { ids(sets.getJSONArray(it)) } }
        },
        items = lines.drop(1).map(::item),
    )
}

private fun item(json: JSONObject): Item {
    val id = json.getString("id")
    val mode = json.getString("mode")
    val fields = json.optJSONObject("fields")
    if (mode != "choose" || fields == null) throw BadWorkloadException("item $id asks to $mode, or has no fields")
    return Item(
        id = id,
        fields = fields.keys().asSequence().associateWith { fields.getString(it) },
        inputIds = ids(json.getJSONArray("input_ids")),
        choices = json.getString("choices"),
    )
}

private fun ids(json: JSONArray) = List(json.length()) { json.getInt(it) }
