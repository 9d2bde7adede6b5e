/** Files of the integration suite at the same time, each with a cluster to itself. */
export const INTEGRATION_WORKERS = 2
