#include "broker/statistics-page.h"

#include "base/cleanup.h"
#include "broker/interface.h"
#include "broker/vm-names.h"
#include "wire/varlink.h"

#include <string.h>
#include <time.h>

static bool is_wanted(const struct interface *interface, uid_t uid, const char *after)
{
	char name[IFNAMSIZ];

	platform_interface_name(interface->number, name);
	return (uid == 0 || interface->record.uid == uid) && strcmp(name, after) > 0;
}

static struct statistics_entry describe(const struct interface *interface)
{
	uid_t uid = interface->record.uid;
	struct statistics_entry entry = {
		.number = interface->number,
		.said = {.has_uid = uid != RECORDS_OWNER_UNKNOWN, .uid = uid},
	};

	text_copy(entry.said.network, sizeof(entry.said.network), interface->network->name);
	text_copy(entry.said.hostname, sizeof(entry.said.hostname), vm_names_get(interface));
	platform_interface_name(interface->number, entry.said.interface_name);
	return entry;
}

/* Sorted by name; what has no room, or makes another lose its place, is more to come. */
static void insert(struct statistics_page *page, const struct statistics_entry *entry)
{
	size_t place = page->count;

	while (place > 0 && strcmp(page->entries[place - 1].said.interface_name,
				    entry->said.interface_name) > 0)
		place--;
	page->more = page->more || page->count == STATISTICS_PAGE_LENGTH;
	if (place == STATISTICS_PAGE_LENGTH)
		return;
	if (page->count == STATISTICS_PAGE_LENGTH)
		page->count--;
	memmove(&page->entries[place + 1], &page->entries[place],
		(page->count - place) * sizeof(*entry));
	page->entries[place] = *entry;
	page->count++;
}

static void take_traffic(void *context, uint32_t number, const struct platform_counters *host_to_vm,
	const struct platform_counters *vm_to_host)
{
	struct statistics_page *page = context;

	for (size_t i = 0; i < page->count; i++) {
		struct broker_statistics *said = &page->entries[i].said;

		if (page->entries[i].number != number)
			continue;
		said->has_kernel = true;
		said->kernel = (struct traffic){
			{host_to_vm->packets, host_to_vm->bytes, host_to_vm->drops},
			{vm_to_host->packets, vm_to_host->bytes, vm_to_host->drops},
		};
	}
}

int statistics_page_fill(const struct registry *registry, uid_t uid, const char *after,
	struct statistics_page *ret_page)
{
	struct timespec now;

	*ret_page = (struct statistics_page){.count = 0};
	for (const struct network *network = registry->networks; network; network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next)
			if (is_wanted(found, uid, after)) {
				struct statistics_entry entry = describe(found);

				insert(ret_page, &entry);
			}
	clock_gettime(CLOCK_BOOTTIME, &now);
	ret_page->time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	return ret_page->count > 0
		       ? platform_count_traffic(registry->platform, take_traffic, ret_page)
		       : 0;
}

json_t *statistics_page_encode(const struct statistics_page *page)
{
	cleanup_json json_t *list = json_array();

	for (size_t i = 0; i < page->count; i++)
		if (json_array_append_new(list, broker_statistics_encode(&page->entries[i].said)) <
			0)
			return NULL;
	return json_pack("{s:O, s:b, s:I}", "statistics", list, "more", page->more, "time",
		(json_int_t)page->time_ms);
}
