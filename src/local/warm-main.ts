import { cacheFolder } from './cache.ts'
import { installPostgresBinaries } from './postgres-binaries.ts'
import { ensureTemporal } from './temporal.ts'

/** Entry point of `npm run warm`: gets everything that takes long the first time on a machine, and starts nothing. */
const cacheDir = cacheFolder(process.env)
await installPostgresBinaries(cacheDir)
await ensureTemporal({ env: process.env, cacheDir })
console.log(`The local stack is in ${cacheDir}.`)
