import { loadConfig } from '#src/config.ts'
import { serve } from '#src/server.ts'
import * as agents from './agents.ts'

// The API as it is, with agents of the tests beside the built-in ones.
await serve(loadConfig(process.env), { agents: Object.values(agents).map(({ manifest }) => manifest) })
