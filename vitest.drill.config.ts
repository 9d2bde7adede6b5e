import { defineConfig } from 'vitest/config'

/** What needs programs that neither npm nor every machine has: `npm run drill`. */
export default defineConfig({ test: { name: 'drill', include: ['test/drill/**/*.test.ts'] } })
