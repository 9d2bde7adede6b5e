export { external } from './external.ts'
export { map } from './map.ts'
export { research } from './research.ts'
