import { defineConfig } from 'vitest/config'
import { E2E_WORKERS, INTEGRATION_WORKERS } from './test/support/workers.ts'

/**
 * The suites differ in what they need: `fast` nothing, `local` starts and kills services of its own, `integration` a
 * Postgres, `e2e` a Postgres and a Temporal server. Only the needed services are started (see the global setup).
 * They run one group after the other: on two cores, a test that measures deadlines suffers from neighbours.
 */
export default defineConfig({
  test: {
    restoreMocks: true,
    projects: [
      {
        test: { name: 'fast', include: ['test/fast/**/*.test.ts'], testTimeout: 10_000, sequence: { groupOrder: 0 } },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 30_000,
          hookTimeout: 30_000,
          // Each has a cluster to itself: an older transaction that is open anywhere in one hides the events of all its databases.
          maxWorkers: INTEGRATION_WORKERS,
          // Read anew for each file, the modules take a fifth of the time; they keep nothing that another file would notice.
          isolate: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'local',
          include: ['test/local/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: E2E_WORKERS,
          isolate: false,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
})
