import { loadConfig } from '#src/config.ts'
import { serve } from '#src/server.ts'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** An API process that says how much memory its objects take, after a collection, whenever it gets SIGUSR2. */
setFlagsFromString('--expose-gc')
const collect: unknown = runInNewContext('gc')
process.on('SIGUSR2', () => {
  if (typeof collect !== 'function') throw new Error('memory cannot be measured without a collection')
  collect()
  collect()
  const { heapUsed, external } = process.memoryUsage()
  process.stdout.write(`${JSON.stringify({ usedBytes: heapUsed + external })}\n`)
})
await serve(loadConfig(process.env))
