/* A libveo of API version VERSION, without anything else. */
int veo_api_version(void) { return VERSION; }
