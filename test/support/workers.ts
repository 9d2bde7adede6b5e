/** Files of a suite at the same time, each with a cluster to itself. */
export const INTEGRATION_WORKERS = 2
export const E2E_WORKERS = 2
export const CLIENT_WORKERS = 2
