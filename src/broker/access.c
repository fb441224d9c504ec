#include "broker/access.h"

#include "base/cleanup.h"
#include "broker/network-adhoc.h"

#include <stdarg.h>
#include <string.h>

/* Names listed in a refusal; more are "...". */
#define LISTED_MAX 8

static bool lists_user(const struct config_principals *users, uid_t uid)
{
	for (size_t i = 0; i < users->count; i++)
		if (users->entries[i].is_known && users->entries[i].id == uid)
			return true;
	return false;
}

static bool lists_group(const struct config_principals *groups, const struct credentials *user)
{
	for (size_t i = 0; i < groups->count; i++)
		if (groups->entries[i].is_known &&
			credentials_have_group(user, groups->entries[i].id))
			return true;
	return false;
}

static bool is_configured(const struct network *network)
{
	return network->config && !*network->config->error;
}

bool access_is_granted(const struct network *network, const struct credentials *user)
{
	const struct config_access *access;

	if (user->uid == 0)
		return true;
	/* docs/decisions/014-ad-hoc-networks.md */
	if (network_is_adhoc(network))
		return true;
	if (!is_configured(network))
		return network->state == NETWORK_ABSENT || network->uid == user->uid;
	access = &network->config->access;
	if (!access->is_given)
		return network->config->settings.mode != NETWORK_MODE_BRIDGED ||
		       network->registry->is_rootless;
	return lists_user(&access->users, user->uid) || lists_group(&access->groups, user);
}

/* What a text is made of piece by piece; what does not fit is cut. */
struct text {
	char *bytes;
	size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void add_text(
	struct text *text, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text->bytes + text->used, text->size - text->used, format, arguments);
	va_end(arguments);
	if (length > 0)
		text->used += (size_t)length < text->size - text->used
				      ? (size_t)length
				      : text->size - text->used - 1;
}

/* "user bob" or "users bob, 1001". */
static void add_principals(
	struct text *text, const char *kind, const struct config_principals *principals)
{
	add_text(text, "%s%s", kind, principals->count == 1 ? "" : "s");
	for (size_t i = 0; i < principals->count && i <= LISTED_MAX; i++) {
		const struct config_principal *principal = &principals->entries[i];
		const char *comma = i ? "," : "";

		if (i == LISTED_MAX)
			add_text(text, "%s ...", comma);
		else if (*principal->name)
			add_text(text, "%s %s%s", comma, principal->name,
				principal->is_known ? "" : " (unknown)");
		else
			add_text(text, "%s %u", comma, principal->id);
	}
}

static void describe_lists(const struct config_access *access, struct text *text)
{
	if (access->users.count + access->groups.count == 0)
		add_text(text, "nobody");
	if (access->users.count)
		add_principals(text, "user", &access->users);
	if (access->users.count && access->groups.count)
		add_text(text, " and ");
	if (access->groups.count)
		add_principals(text, "group", &access->groups);
}

/* Why it is not granted. */
static void describe_rule(const struct network *network, struct text *text)
{
	const struct config_network *config = network->config;

	if (!config)
		add_text(text, "it is not in the configuration; it is there for who had it made");
	else if (*config->error)
		add_text(text, "it is out of service for new users: %s", config->error);
	else if (config->access.is_given) {
		add_text(text, "%s: %s.allow lists ", config->file, network->name);
		describe_lists(&config->access, text);
	} else
		add_text(text,
			"%s: %s.mode is bridged, which is root's alone unless %s.allow lists "
			"others",
			config->file, network->name, network->name);
}

int access_check(
	const struct network *network, const struct credentials *user, struct failure *failure)
{
	char bytes[BROKER_REASON_SIZE] = "", who[CREDENTIALS_TEXT_SIZE];
	struct text rule = {bytes, sizeof(bytes), 0};

	if (access_is_granted(network, user))
		return 0;
	credentials_describe(user->uid, who);
	describe_rule(network, &rule);
	return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
		"network \"%s\" is not open to %s: %s", network->name, who, bytes);
}
