#include "run/socket-directory.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FALLBACK    "/tmp"
#define SOCKET_NAME "net"
/* "/vmnet-0123456789abcdef/" and the helper's own files beside the socket, as net.lock. */
#define BELOW_SIZE 40

static void close_directory(DIR *directory)
{
	closedir(directory);
}
DEFINE_CLEANUP(DIR, close_directory)

/* As whom vmnet-helper will run: it drops from root to the user who called sudo, and reports what
 * is wrong with these variables. Returns whether it does. */
static bool find_sudo_user(uid_t *ret_uid, gid_t *ret_gid)
{
	const char *uid_text = getenv("SUDO_UID");
	const char *gid_text = getenv("SUDO_GID");
	uint32_t uid;
	uint32_t gid;

	if (getuid() != 0 || !uid_text || !gid_text)
		return false;
	if (text_to_uint32(uid_text, 1, UINT32_MAX - 1, &uid) < 0 ||
		text_to_uint32(gid_text, 0, UINT32_MAX - 1, &gid) < 0)
		return false;
	*ret_uid = uid;
	*ret_gid = gid;
	return true;
}

/* A comma separates in QEMU's options. */
static bool is_usable(const char *directory)
{
	struct stat status;

	return directory && directory[0] == '/' && !strchr(directory, ',') &&
	       strlen(directory) + BELOW_SIZE < SOCKET_DIRECTORY_PATH_SIZE &&
	       stat(directory, &status) == 0 && S_ISDIR(status.st_mode) &&
	       status.st_uid == geteuid() && access(directory, W_OK | X_OK) == 0;
}

int socket_directory_choose(char *directory)
{
	const char *parent = getenv("XDG_RUNTIME_DIR");
	uint64_t number;
	uid_t uid;
	gid_t gid;

	if (getrandom(&number, sizeof(number), 0) < 0)
		return -errno;
	if (find_sudo_user(&uid, &gid) || !is_usable(parent))
		parent = FALLBACK;
	snprintf(directory, SOCKET_DIRECTORY_PATH_SIZE, "%.*s/vmnet-%016" PRIx64,
		SOCKET_DIRECTORY_PATH_SIZE - BELOW_SIZE, parent, number);
	return 0;
}

int socket_directory_make(const char *directory, char *path)
{
	uid_t uid;
	gid_t gid;
	int length;

	length = snprintf(path, SOCKET_DIRECTORY_PATH_SIZE, "%s/" SOCKET_NAME, directory);
	if (length >= SOCKET_DIRECTORY_PATH_SIZE)
		return -ENAMETOOLONG;
	if (mkdir(directory, 0700) < 0)
		return -errno;
	if (find_sudo_user(&uid, &gid) && lchown(directory, uid, gid) < 0) {
		int result = -errno;

		rmdir(directory);
		return result;
	}
	return 0;
}

void socket_directory_remove(const char *directory)
{
	cleanup_with(close_directory) DIR *files = NULL;
	struct dirent *entry;
	int fd;

	if (!directory[0])
		return;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	files = fdopendir(fd);
	if (!files) {
		fd_close(fd);
		return;
	}
	while ((entry = readdir(files)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(files), entry->d_name, 0);
	rmdir(directory);
}
