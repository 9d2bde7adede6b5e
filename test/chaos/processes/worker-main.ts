import { fileURLToPath } from 'node:url'
import { loadConfig } from '#src/config.ts'
import { work } from '#src/worker.ts'
import * as agents from './agents.ts'

// The worker as it is, with agents of the tests beside the built-in ones.
await work(loadConfig(process.env), {
  workflowsPath: fileURLToPath(new URL('agents.ts', import.meta.url)),
  agents: Object.values(agents).map(({ manifest }) => manifest),
})
