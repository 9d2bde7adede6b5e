import { loadConfig } from '#src/config.ts'
import { serve } from '#src/server.ts'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** An API process that says how much memory it holds, after a collection, whenever it gets SIGUSR2. */
setFlagsFromString('--expose-gc')
const collect: unknown = runInNewContext('gc')
process.on('SIGUSR2', () => {
  if (typeof collect !== 'function') throw new Error('memory cannot be measured without a collection')
  collect()
  collect()
  const { rss, heapUsed, external } = process.memoryUsage()
  process.stdout.write(`${JSON.stringify({ memory: { usedBytes: heapUsed + external, residentBytes: rss } })}\n`)
})
await serve(loadConfig(process.env))
