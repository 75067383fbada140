/*
 * Stands where Debian's RAUC looks for libcurl. A bundle comes to the appliance through the daemon, never by RAUC's own
 * download; without libcurl and what it asks for (TLS, Kerberos, LDAP, ...) the root is 12 MB smaller before compression
 * and holds less that could be attacked. Every call fails in the way that libcurl documents. Yocto's RAUC is built
 * without it.
 */
#define FAILED 4 /* CURLE_NOT_BUILT_IN, CURLM_INTERNAL_ERROR */

int curl_global_init(long flags) { (void)flags; return 0; }
long curl_getdate(const char *text, const long *now) { (void)text; (void)now; return -1; }

void *curl_easy_init(void) { return 0; }
void curl_easy_cleanup(void *easy) { (void)easy; }
int curl_easy_setopt(void *easy, int option, ...) { (void)easy; (void)option; return FAILED; }
int curl_easy_getinfo(void *easy, int info, ...) { (void)easy; (void)info; return FAILED; }
int curl_easy_perform(void *easy) { (void)easy; return FAILED; }
const char *curl_easy_strerror(int code) { (void)code; return "this RAUC fetches nothing itself"; }

void *curl_multi_init(void) { return 0; }
int curl_multi_cleanup(void *multi) { (void)multi; return FAILED; }
int curl_multi_add_handle(void *multi, void *easy) { (void)multi; (void)easy; return FAILED; }
int curl_multi_remove_handle(void *multi, void *easy) { (void)multi; (void)easy; return FAILED; }
int curl_multi_perform(void *multi, int *running) { (void)multi; *running = 0; return FAILED; }
int curl_multi_wait(void *multi, void *fds, unsigned count, int ms, int *ready)
{
    (void)multi; (void)fds; (void)count; (void)ms; (void)ready;
    return FAILED;
}
void *curl_multi_info_read(void *multi, int *left) { (void)multi; *left = 0; return 0; }

void *curl_slist_append(void *list, const char *text) { (void)list; (void)text; return 0; }
void curl_slist_free_all(void *list) { (void)list; }
