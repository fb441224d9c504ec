#include "rootless/remains.h"

#include "base/cleanup.h"
#include "rootless/pause.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>

/* False when its holder removed the file as it ended: somebody else may have made another. */
static bool is_still_named(int lock, int runtime)
{
	struct stat held, named;

	return fstat(lock, &held) == 0 &&
	       fstatat(runtime, REMAINS_LOCK, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       held.st_ino == named.st_ino;
}

/* Takes fd over. Directories have none below them. */
static void empty_directory(int fd)
{
	DIR *entries = fdopendir(fd);

	if (!entries) {
		fd_close(fd);
		return;
	}
	for (const struct dirent *entry; (entry = readdir(entries));)
		(void)unlinkat(fd, entry->d_name, 0);
	closedir(entries);
}

static void remove_directory(int runtime, const char *name)
{
	int fd = openat(runtime, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return;
	empty_directory(fd);
	(void)unlinkat(runtime, name, AT_REMOVEDIR);
}

static const char *const directories[] = {"networks", "interfaces", "forwards"};

/* Not all there is, because somebody may keep his configuration and the state there, too. */
static void remove_known(int runtime)
{
	static const char *const files[] = {
		"socket", "priv", "forwarder", PAUSE_SOCKET, NAMESPACE_RECORD, "sysctls"};

	for (size_t i = 0; i < array_length(directories); i++)
		remove_directory(runtime, directories[i]);
	for (size_t i = 0; i < array_length(files); i++)
		(void)unlinkat(runtime, files[i], 0);
}

int remains_remove(const char *runtime_directory)
{
	cleanup_fd int runtime =
		open(runtime_directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_fd int lock = -1;

	if (runtime < 0)
		return -errno;
	lock = openat(runtime, REMAINS_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (lock < 0)
		return -errno;
	if (flock(lock, LOCK_EX | LOCK_NB) < 0 || !is_still_named(lock, runtime))
		return 0;
	remove_known(runtime);
	/* The lock last: who waits for it finds no directory then, and makes another. */
	(void)unlinkat(runtime, REMAINS_LOCK, 0);
	(void)rmdir(runtime_directory);
	return 1;
}

void remains_remove_empty(const char *runtime_directory)
{
	cleanup_fd int runtime =
		open(runtime_directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (runtime < 0)
		return;
	for (size_t i = 0; i < array_length(directories); i++)
		(void)unlinkat(runtime, directories[i], AT_REMOVEDIR);
}
