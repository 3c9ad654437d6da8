// The bundle as a library module: its Kotlin from here, all else from the bundle's own folder, one above.
import groovy.json.JsonSlurper
import javax.inject.Inject

plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android") // with AGP 9, which compiles Kotlin by itself, leave this line out
}

val bundleFolder: File = projectDir.parentFile
val manifest = JsonSlurper().parse(File(bundleFolder, "manifest.json")) as Map<*, *>
val backend = manifest["backend"] as String
val carried =
    listOf("manifest.json", "task.slm", "prefix.slm", "model/model.slm", "model/model.pte", "model/model.json")

/** Puts the bundle's files under `slm/` of the app's assets; nothing is copied within the bundle. */
abstract class BundleAssets : DefaultTask() {
    @get:Internal abstract val bundle: DirectoryProperty

    @get:InputFiles @get:PathSensitive(PathSensitivity.RELATIVE) abstract val files: ConfigurableFileCollection

    @get:OutputDirectory abstract val assets: DirectoryProperty

    @get:Inject abstract val system: FileSystemOperations

    @TaskAction
    fun copy() {
        val names = files.map { it.relativeTo(bundle.get().asFile).invariantSeparatorsPath }
        system.sync {
            from(bundle) { include(names) }
            into(assets.dir("slm"))
        }
    }
}

val bundleAssets = tasks.register<BundleAssets>("bundleAssets") {
    bundle.set(bundleFolder)
    files.from(carried.map { File(bundleFolder, it) }.filter { it.isFile })
}

androidComponents.onVariants { variant ->
    variant.sources.assets?.addGeneratedSourceDirectory(bundleAssets, BundleAssets::assets)
}

android {
    namespace = "org.slmc.classifier"
    compileSdk = 35
    defaultConfig {
        minSdk = 26
        ndk { abiFilters += "arm64-v8a" }
        consumerProguardFiles("consumer-rules.pro")
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    sourceSets {
        getByName("main") {
            java.srcDirs("../model/java")
            kotlin.srcDirs("src/core/kotlin", "src/$backend/kotlin")
            jniLibs.srcDirs("../model/jniLibs")
        }
        getByName("androidTest") { kotlin.srcDirs("src/runner/kotlin") }
    }
    // Of this module's own test app; the app that ships says the same for itself, see README.md.
    androidResources { noCompress += listOf("slm", "pte") }
}

kotlin { compilerOptions { jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11) } }

dependencies {
    implementation("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.8.1")
    if (backend == "executorch") implementation("org.pytorch:executorch-android:1.5.1")
    androidTestImplementation("androidx.test:runner:1.6.2")
    androidTestImplementation("androidx.test.ext:junit:1.2.1")
}
