package org.slmc

import android.content.Context
import java.io.File
import java.nio.file.Files
import java.security.MessageDigest

/** A new app with the same assets, to be spoilt at will. */
internal class App(like: File) {
    private val root = Files.createTempDirectory("app").toFile()
    val context = Context(root)
    val assets = File(root, "assets/slm")

    init {
        File(like, "assets").copyRecursively(File(root, "assets"))
    }

    suspend fun open(folder: File? = null, onFailedCheck: OnFailedCheck = OnFailedCheck.ABSTAIN) =
        Classifier.open(context, folder, threads = 2, onFailedCheck = onFailedCheck)

    fun edit(file: String, from: String, to: String) {
        val text = File(assets, file).readText()
        check(from in text) { "no $from in $file" }
        File(assets, file).writeText(text.replace(from, to))
    }

    fun spoil(file: File) = file.writeBytes(file.readBytes().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })

    /** The same with the manifest's consent. */
    fun exchange(name: String) {
        val file = File(assets, name)
        val before = sha256(file)
        spoil(file)
        edit("manifest.json", before, sha256(file))
    }

    private fun sha256(file: File) = MessageDigest.getInstance("SHA-256").apply { update(file.readBytes()) }.hex()

    fun installed(): List<File> {
        val bundle = File(context.noBackupFilesDir, "slm").listFiles().orEmpty().single()
        return bundle.listFiles().orEmpty().filter { it.isDirectory }
    }

    fun checked() = File(installed().single(), "checked").readLines()
}
