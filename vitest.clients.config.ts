import { defineConfig } from 'vitest/config'
import { CLIENT_WORKERS } from './test/support/workers.ts'

/** The gateway before clients of others, which have to be installed: `npm run test:clients`. */
export default defineConfig({
  test: {
    name: 'clients',
    include: ['test/clients/**/*.test.ts'],
    exclude: ['**/node_modules/**', '**/.venv/**'],
    globalSetup: ['test/support/global-setup.ts'],
    hookTimeout: 30_000,
    maxWorkers: CLIENT_WORKERS,
  },
})
