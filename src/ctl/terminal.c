#include "ctl/terminal.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#define ELLIPSIS "\xe2\x80\xa6"

static bool wants_color(void)
{
	const char *no = getenv("NO_COLOR");
	const char *kind = getenv("TERM");

	return !(no && *no) && kind && *kind && strcmp(kind, "dumb") != 0;
}

void terminal_look(struct terminal *ret_terminal)
{
	struct terminal terminal = {.is_one = isatty(STDOUT_FILENO)};
	struct winsize size = {0};

	if (terminal.is_one && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
		terminal.columns = size.ws_col;
		terminal.rows = size.ws_row;
	}
	terminal.has_color = terminal.is_one && wants_color();
	*ret_terminal = terminal;
}

void terminal_set_locale(void)
{
	setlocale(LC_CTYPE, isatty(STDOUT_FILENO) ? "" : "C.UTF-8");
}

/* Formatting characters of Unicode, which glibc takes for printable: they hide or reorder what
 * stands around them (Unicode Technical Report 36). */
static bool is_invisible(wchar_t c)
{
	static const struct {
		wchar_t first, last;
	} ranges[] = {
		{0xad, 0xad},
		{0x61c, 0x61c},
		{0x180e, 0x180e},
		{0x200b, 0x200f},
		{0x2028, 0x202e},
		{0x2060, 0x206f},
		{0xfeff, 0xfeff},
		{0xfff9, 0xfffb},
		{0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return false;
}

/* The character at text and its bytes; 0 bytes when it is none, or not to be shown. */
static size_t read_character(const char *text, wchar_t *ret_character)
{
	mbstate_t state = {0};
	size_t size = mbrtowc(ret_character, text, strlen(text), &state);

	if (size == (size_t)-1 || size == (size_t)-2 || !iswprint((wint_t)*ret_character) ||
		is_invisible(*ret_character))
		return 0;
	return size;
}

/* Bytes of what is no character to be shown: all of one, so that it becomes one '?'. */
static size_t skip_bytes(const char *text)
{
	mbstate_t state = {0};
	size_t size = mbrtowc(NULL, text, strlen(text), &state);

	return size == (size_t)-1 || size == (size_t)-2 || size == 0 ? 1 : size;
}

char *terminal_clean(const char *text)
{
	char *clean = malloc(strlen(text) + 1 + TERMINAL_CUT_ROOM);
	char *end = clean;

	if (!clean)
		return NULL;
	while (*text) {
		wchar_t character;
		size_t size = read_character(text, &character);

		if (size > 0) {
			end = (char *)memcpy(end, text, size) + size;
		} else {
			*end++ = '?';
			size = skip_bytes(text);
		}
		text += size;
	}
	*end = '\0';
	return clean;
}

int terminal_width(const char *text)
{
	wchar_t character;
	int width = 0;

	while (*text) {
		size_t size = read_character(text, &character);

		if (size == 0)
			return width;
		width += wcwidth(character);
		text += size;
	}
	return width;
}

void terminal_cut(char *text, int width)
{
	const char *mark = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? ELLIPSIS : "+";
	int used = 0;

	if (terminal_width(text) <= width)
		return;
	while (*text) {
		wchar_t character;
		size_t size = read_character(text, &character);
		int next = size > 0 ? wcwidth(character) : width;

		if (used + next > width - 1)
			break;
		used += next;
		text += size;
	}
	strcpy(text, mark);
}
