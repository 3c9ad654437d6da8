package android.content;

import android.content.res.AssetManager;
import android.os.PowerManager;
import java.io.File;

/** An app's folders, within one that stands for its data, and its assets. */
public class Context {
  private final File root;

  public Context(File root) {
    this.root = root;
  }

  public AssetManager getAssets() {
    return new AssetManager(new File(root, "assets"));
  }

  public File getFilesDir() {
    return made("files");
  }

  public File getNoBackupFilesDir() {
    return made("no_backup");
  }

  public <T> T getSystemService(Class<T> service) {
    return service.cast(new PowerManager());
  }

  private File made(String name) {
    File folder = new File(root, name);
    folder.mkdirs();
    return folder;
  }
}
